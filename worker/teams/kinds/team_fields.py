"""What a flow's or a team's document may say, in any generation: ArkFlow, ArkTeam, SwarmTeam, AgentPipeline.

Sources: kubeswarm `api/v1alpha1/swarmteam_types.go` and `shared_types.go`, ark `api/v1alpha1/arkflow_types.go`.
"""

from __future__ import annotations

from worker.teams.kinds.agent_fields import AGENT_RULES, APPROVAL, NO_PODS, WORKING_FIELDS, noted
from worker.teams.kinds.objects import Field, Object
from worker.teams.kinds.references import NAME, PART_NAME, REFERENCE, only_one
from worker.teams.kinds.shapes import Anything, Either, Flag, ListOf, MapOf, Number, OneOf, Seconds, Text
from worker.teams.kinds.texts import PATH, PATTERN, SCHEMA, TEMPLATE

AGENT_KEYS = ("arkAgent", "swarmAgent", "agentDeployment", "arkonisDeployment", "agent")
"""What the generations call a step's or a role's agent."""
TEAM_KEYS = ("arkTeam", "swarmTeam")
_WHO = {
    **{name: Field(NAME, ours=name == "agent") for name in AGENT_KEYS},
    **{name: Field(NAME) for name in TEAM_KEYS},
}
_LOOP = Object(
    {
        "condition": Field(TEMPLATE, is_required=True),
        "maxIterations": Field(Number(least=1, most=100)),
    },
    "a loop",
)
_VALIDATE = Object(
    {
        "contains": Field(PATTERN),
        "schema": Field(SCHEMA),
        "semantic": Field(TEMPLATE),
        "semanticModel": Field(Text()),
        "onFailure": Field(OneOf(("fail", "retry"))),
        "maxRetries": Field(Number(least=0, most=10)),
        "rejectPatterns": Field(ListOf(PATTERN)),
    },
    "a validation",
)
CONTEXT_POLICY = Object(
    {
        "strategy": Field(OneOf(("full", "compress", "extract", "none")), is_required=True),
        "compress": Field(
            Object(
                {
                    "targetTokens": Field(Number(least=0)),
                    "model": Field(Text()),
                    "prompt": Field(TEMPLATE),
                },
                "compression",
            )
        ),
        "extract": Field(Object({"path": Field(PATH, is_required=True)}, "extraction")),
    },
    "a context policy",
)
_LOOKUP = Object(
    {
        "capability": Field(TEMPLATE, is_required=True),
        "tags": Field(ListOf(Text())),
        "strategy": Field(OneOf(("least-busy", "round-robin", "random"))),
        "registryRef": Field(REFERENCE),
        "fallback": Field(Text()),
    },
    "a registry lookup",
)
_ARTIFACT = Either(
    {
        "map": Object(
            {
                "name": Field(NAME, is_required=True),
                "description": Field(Text(), use="ignored"),
                "contentType": Field(Text(), use="ignored"),
            },
            "an artifact",
        ),
        "scalar": NAME,
    }
)
STEP = Object(
    {
        "name": Field(PART_NAME),
        "role": Field(PART_NAME),
        **_WHO,
        "inputs": Field(MapOf(TEMPLATE)),
        "dependsOn": Field(ListOf(NAME, unique=".")),
        "if": Field(TEMPLATE),
        "loop": Field(_LOOP),
        "outputSchema": Field(SCHEMA),
        "validate": Field(_VALIDATE),
        "outputArtifacts": Field(ListOf(_ARTIFACT, unique="name")),
        "inputArtifacts": Field(MapOf(TEMPLATE)),
        "registryLookup": Field(_LOOKUP),
        "contextPolicy": Field(CONTEXT_POLICY),
        "maxOutputBytes": Field(Number(least=0)),
        "provider": Field(Text(), ours=True),
        "model": Field(Text(), ours=True),
        "timeoutSeconds": Field(Number(least=1), ours=True),
        "approval": Field(APPROVAL, ours=True),
    },
    "a step",
    rules=(only_one(*AGENT_KEYS, *TEAM_KEYS), only_one("role", *AGENT_KEYS, *TEAM_KEYS)),
)
ROLE = Object(
    {
        "name": Field(PART_NAME, is_required=True),
        **_WHO,
        "model": Field(Text()),
        "canDelegate": Field(ListOf(NAME, unique=".")),
        **WORKING_FIELDS,
    },
    "a role",
    rules=(only_one(*AGENT_KEYS, *TEAM_KEYS, "model"), *AGENT_RULES),
)
MEMBER = Object(
    {
        "role": Field(PART_NAME, is_required=True),
        **_WHO,
        "entry": Field(Flag()),
        "delegates": Field(ListOf(NAME, unique=".")),
        "canDelegate": Field(ListOf(NAME, unique=".")),
        "model": Field(Text()),
        **WORKING_FIELDS,
    },
    "a member",
    rules=(only_one(*AGENT_KEYS, *TEAM_KEYS, "model"), only_one("delegates", "canDelegate"), *AGENT_RULES),
)
INPUT = Object(
    {
        "name": Field(NAME, is_required=True),
        "type": Field(OneOf(("string", "number", "boolean", "object", "array"))),
        "description": Field(Text()),
        "required": Field(Flag()),
        "default": Field(Anything()),
    },
    "an input",
)
_ROUTING = Object(
    {
        "registryRef": Field(REFERENCE),
        "model": Field(Text(is_required=True)),
        "provider": Field(Text(), ours=True),
        "options": Field(Anything(("map",)), ours=True),
        "systemPrompt": Field(TEMPLATE),
        "fallback": Field(Text()),
        "maxHops": Field(Number(least=1, most=1)),
    },
    "the routing",
)
_FROM_ENVIRONMENT = "credentials come from the workers' environment"
_STORE = Object(
    {
        "type": Field(OneOf(("local", "s3", "gcs")), is_required=True),
        "local": Field(
            Object({"path": Field(Text()), "claimName": Field(Text(), use="noted", note=NO_PODS)}, "a local store")
        ),
        "s3": Field(
            Object(
                {
                    "bucket": Field(NAME, is_required=True),
                    "region": Field(Text()),
                    "prefix": Field(Text()),
                    "endpoint": Field(Text()),
                    "credentialsSecret": Field(REFERENCE, use="noted", note=_FROM_ENVIRONMENT),
                },
                "an S3 store",
            )
        ),
        "gcs": Field(
            Object(
                {
                    "bucket": Field(NAME, is_required=True),
                    "prefix": Field(Text()),
                    "credentialsSecret": Field(REFERENCE, use="noted", note=_FROM_ENVIRONMENT),
                },
                "a Cloud Storage store",
            )
        ),
    },
    "an artifact store",
)
TEAM = Object(
    {
        "description": Field(Text(), ours=True),
        "steps": Field(ListOf(STEP, least=1)),
        "pipeline": Field(ListOf(STEP)),
        "roles": Field(ListOf(ROLE, unique="name")),
        "members": Field(ListOf(MEMBER, unique="role")),
        "entry": Field(NAME),
        "input": Field(MapOf(Anything())),
        "inputs": Field(ListOf(INPUT, unique="name")),
        "output": Field(TEMPLATE),
        "timeoutSeconds": Field(Number(least=1)),
        "maxTokens": Field(Number(least=1)),
        "limits": Field(Object({"maxDailyTokens": Field(Number(least=1))}, "the team's limits")),
        "maxDailyTokens": Field(Number(least=1)),
        "maxDepth": Field(Number(least=1, most=20), ours=True),
        "defaultContextPolicy": Field(CONTEXT_POLICY),
        "successfulRunsHistoryLimit": Field(Number(least=0)),
        "failedRunsHistoryLimit": Field(Number(least=0)),
        "runRetainFor": Field(Seconds(), use="noted", note="runs are kept as long as the fleet keeps them"),
        "networkPolicy": Field(Anything(), use="noted", note="networks are not restricted here"),
        "notifyRef": Field(REFERENCE),
        "budgetRef": Field(REFERENCE, use="noted", note="budgets are the fleet's own: `shoal budgets`"),
        "registryRef": Field(REFERENCE),
        "artifactStore": Field(_STORE),
        "autoscaling": noted(NO_PODS),
        "search": Field(Anything(("map",))),
        "routing": Field(_ROUTING),
    },
    "a team",
    rules=(
        only_one("steps", "pipeline", "routing", "search"),
        only_one("roles", "members", "routing"),
    ),
)
