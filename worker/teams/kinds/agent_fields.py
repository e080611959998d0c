"""What an agent's document may say, in any generation: ArkAgent, SwarmAgent, AgentDeployment, and teams' inline roles.

Sources: kubeswarm `api/v1alpha1/swarmagent_types.go`, ark `api/v1alpha1/arkagent_types.go`, their published examples.
"""

from __future__ import annotations

from worker.teams.kinds.findings import Findings
from worker.teams.kinds.loop_fields import CONNECTION, LOOP
from worker.teams.kinds.objects import Field, Fields, Object
from worker.teams.kinds.references import (
    ENV,
    ENV_FROM,
    KEY_SELECTOR,
    NAME,
    PROMPT_SOURCE,
    REFERENCE,
    only_one,
)
from worker.teams.kinds.shapes import Anything, Either, Flag, ListOf, Number, OneOf, Seconds, Text
from worker.teams.kinds.texts import TEMPLATE, URL
from worker.teams.kinds.tool_fields import MCP_SERVER, TOOLS

NO_PODS = "there are no pods here: `shoal worker` scales"
_MAP = Anything(("map",))


def noted(why: str, shape: Anything | Text | Number | OneOf = _MAP) -> Field:
    """A field that is read and not used."""
    return Field(shape, use="noted", note=why)


PROMPT = Either(
    {
        "map": Object(
            {"inline": Field(Text()), "from": Field(PROMPT_SOURCE)}, "a prompt", rules=(only_one("inline", "from"),)
        ),
        "scalar": Text(),
    }
)
LIMITS = Object(
    {
        "tokensPerCall": Field(Number(least=1, most=10_000_000)),
        "maxTokensPerCall": Field(Number(least=1, most=10_000_000)),
        "concurrentTasks": Field(Number(least=1, most=1_000_000)),
        "maxConcurrentTasks": Field(Number(least=1, most=1_000_000)),
        "timeoutSeconds": Field(Number(least=1, most=86_400)),
        "dailyTokens": Field(Number(least=1)),
        "maxDailyTokens": Field(Number(least=1)),
        "maxThinkingTokensPerCall": Field(Number(least=1)),
        "circuitBreaker": noted("circuit breakers are the fleet's own"),
        "maxAnswerTokensPerCall": noted("`tokensPerCall` bounds answers", Number(least=1)),
        "retries": noted(
            "workers repeat failed tasks by their own setting, AGENT_MAX_RETRIES", Number(least=0, most=100)
        ),
    },
    "the limits",
    rules=(
        only_one("tokensPerCall", "maxTokensPerCall"),
        only_one("concurrentTasks", "maxConcurrentTasks"),
        only_one("dailyTokens", "maxDailyTokens"),
    ),
)
_PERMISSIONS = Object(
    {
        "allow": Field(ListOf(NAME)),
        "deny": Field(ListOf(NAME)),
        "trust": noted("there are no trust levels: arguments always have to fit the tool's schema"),
    },
    "tool permissions",
)
_GUARDRAILS = Object(
    {
        "tools": Field(_PERMISSIONS),
        "budgetRef": Field(REFERENCE, use="noted", note="budgets are the fleet's own: `shoal budgets`"),
        "limits": Field(LIMITS),
    },
    "the guardrails",
)
REPLICAS = Field(Number(least=0, most=50))
_AUTOSCALING = noted(NO_PODS)
_RESOURCES = noted("workers have what their machine gives them")
_RUNTIME = Object(
    {
        "replicas": REPLICAS,
        "autoscaling": _AUTOSCALING,
        "resources": _RESOURCES,
        "loop": Field(LOOP),
        "artifacts": Field(
            Object(
                {
                    "saveOutput": Field(Flag()),
                    "format": Field(OneOf(("text", "json", "markdown", "yaml"))),
                },
                "what is kept of answers",
            )
        ),
        "drainTimeoutSeconds": noted(
            "how long workers may finish what they have is SHOAL_GRACE_SECONDS", Number(least=0)
        ),
    },
    "the runtime",
)


def _needs_name(found: Fields, findings: Findings) -> None:
    if "name" not in found and "id" not in found:
        findings.error(found.node, "a capability needs 'name': a name")


CAPABILITY = Object(
    {
        "name": Field(NAME),
        "id": Field(NAME),
        "description": Field(Text()),
        "tags": Field(ListOf(NAME)),
        "exposeMCP": Field(Flag(), use="noted", note="agents are not offered as MCP servers"),
        "inputSchema": Field(Anything(), use="ignored"),
        "outputSchema": Field(Anything(), use="ignored"),
    },
    "a capability",
    rules=(only_one("name", "id"), _needs_name),
)
APPROVAL = Either(
    {
        "map": Object(
            {
                "message": Field(TEMPLATE),
                "timeoutSeconds": Field(Seconds()),
                "fallback": Field(OneOf(("reject", "approve", "skip"))),
                "webhook": Field(URL),
                "webhookEnv": Field(NAME),
            },
            "an approval",
            rules=(only_one("webhook", "webhookEnv"),),
        ),
        "scalar": Flag(),
    }
)
REASONING = Object(
    {
        "mode": Field(OneOf(("Disabled", "Auto", "Explicit"))),
        "effort": Field(OneOf(("Low", "Medium", "High"))),
        "budgetTokens": Field(Number(least=1024, most=200_000)),
    },
    "reasoning",
)
_APPROVED = Text(is_required=True, means="the name of a tool, or a pattern such as crm__*")
_PLUGINS = noted("plugins are the fleet's own: SWARM_PLUGIN_LLM_ADDR, `shoal provider`")
_NETWORK = Field(Anything(("map", "scalar")), use="noted", note="networks are not restricted here")
_REGISTRY = Field(REFERENCE)
_ENVIRONMENT = {
    "env": Field(ENV, ours=True),
    "envFrom": Field(ENV_FROM),
    "apiKeyRef": Field(KEY_SELECTOR),
    "secretRefs": Field(ListOf(REFERENCE)),
}
WORKING_FIELDS = {
    "description": Field(Text(), ours=True),
    "provider": Field(Text(), ours=True),
    "prompt": Field(PROMPT),
    "systemPrompt": Field(Text()),
    "systemPromptRef": Field(PROMPT_SOURCE),
    "settings": Field(ListOf(REFERENCE, unique="name")),
    "settingsRefs": Field(ListOf(REFERENCE, unique="name")),
    "configRef": Field(REFERENCE),
    "memoryRef": Field(REFERENCE),
    "mcpServers": Field(ListOf(MCP_SERVER, unique="name")),
    "tools": Field(TOOLS),
    "limits": Field(LIMITS),
    "guardrails": Field(_GUARDRAILS),
    "runtime": Field(_RUNTIME),
    "replicas": REPLICAS,
    "resources": _RESOURCES,
    "autoscaling": _AUTOSCALING,
    **_ENVIRONMENT,
    "plugins": _PLUGINS,
    "networkPolicy": _NETWORK,
    "reasoning": Field(REASONING),
    "livenessProbe": noted("agents are not probed with model calls: `shoal provider health` asks the provider"),
    "observability": noted("logs, metrics and health are the fleet's own: OTEL_*, /metrics, `shoal doctor`"),
    "capabilities": Field(ListOf(CAPABILITY)),
    "requireApproval": Field(Either({"list": ListOf(_APPROVED), "scalar": _APPROVED}), ours=True),
    "approval": Field(APPROVAL, ours=True),
    "options": Field(_MAP, ours=True),
    "temperature": Field(Number(least=0, most=2, is_whole=False), ours=True),
    "maxTurns": Field(Number(least=1, most=1000), ours=True),
}
"""Of agents and of inline roles."""
AGENT_RULES = (
    only_one("prompt", "systemPrompt"),
    only_one("prompt", "systemPromptRef"),
    only_one("settings", "settingsRefs"),
)
AGENT = Object(
    {
        "model": Field(Text()),
        **WORKING_FIELDS,
        "registryRef": _REGISTRY,
        "infrastructure": Field(
            Object(
                {"registryRef": _REGISTRY, "networkPolicy": _NETWORK, "plugins": _PLUGINS, **_ENVIRONMENT},
                "the infrastructure",
            )
        ),
        "agents": Field(ListOf(CONNECTION, unique="name")),
        "sandbox": noted("there is no sandbox for tools here"),
        "advisors": noted("advisors are `agents` with `role: advisor`", Anything(("map", "list"))),
        "gateway": noted("agents are found by teams: `routing`, `registryLookup`"),
        "audit": noted("the audit log is the fleet's own: AGENT_AUDIT_LOG"),
    },
    "an agent",
    rules=AGENT_RULES,
)
