"""What the smaller kinds' documents may say: settings, memories, registries, events, notification policies, runs and
budgets.

Sources: kubeswarm `api/v1alpha1/swarm*_types.go`, ark's of the same names, their published examples.
"""

from __future__ import annotations

from worker.teams.kinds.agent_fields import REASONING, noted
from worker.teams.kinds.objects import Field, Object
from worker.teams.kinds.references import KEY_SELECTOR, NAME, REFERENCE, only_one
from worker.teams.kinds.shapes import Anything, Flag, ListOf, MapOf, Number, OneOf, Seconds, Text
from worker.teams.kinds.texts import CRON, TEMPLATE, TIME_ZONE, URL

_FRAGMENT = Object(
    {
        "name": Field(NAME, is_required=True),
        "text": Field(Text(), is_required=True),
        "position": Field(OneOf(("prepend", "append"))),
    },
    "a fragment",
)
_SECURITY = Object({"mcpAllowlist": Field(ListOf(NAME)), "requireMCPAuth": Field(Flag())}, "the security")
SETTINGS = Object(
    {
        "temperature": Field(Number(least=0, most=2, is_whole=False)),
        "outputFormat": noted("nothing acts on it: say it in a fragment", Text()),
        "memoryBackend": noted(
            "a memory is named where it is used: `memoryRef`", OneOf(("in-context", "vector-store", "redis"))
        ),
        "fragments": Field(ListOf(_FRAGMENT, unique="name")),
        "promptFragments": Field(
            Object({"persona": Field(Text()), "outputRules": Field(Text())}, "the prompt's fragments")
        ),
        "security": Field(_SECURITY),
        "reasoning": Field(REASONING),
        "auditLog": noted("the audit log is the fleet's own: AGENT_AUDIT_LOG"),
        "defaults": noted("defaults are the workers' own settings"),
    },
    "settings",
)
_REDIS = Object(
    {
        "secretRef": Field(REFERENCE),
        "ttlSeconds": Field(Number(least=0)),
        "maxEntries": Field(Number(least=0)),
    },
    "the Redis memory",
)
_VECTOR_STORE = Object(
    {
        "provider": Field(OneOf(("qdrant", "pgvector", "embedded", "pinecone", "weaviate")), is_required=True),
        "endpoint": Field(Text()),
        "collection": Field(Text()),
        "secretRef": Field(REFERENCE),
        "ttlSeconds": Field(Number(least=0)),
        "maxEntries": Field(Number(least=0), ours=True),
    },
    "the vector store",
)
_EMBEDDING = Object(
    {
        "model": Field(NAME, is_required=True),
        "provider": Field(Text()),
        "dimensions": Field(Number(least=0, most=100_000)),
        "apiKeyRef": Field(KEY_SELECTOR),
    },
    "the embedding",
)
MEMORY = Object(
    {
        "backend": Field(OneOf(("in-context", "redis", "vector-store")), is_required=True),
        "redis": Field(_REDIS),
        "vectorStore": Field(_VECTOR_STORE),
        "embedding": Field(_EMBEDDING),
        "maxEntries": Field(Number(least=0), ours=True),
        "ttlSeconds": Field(Number(least=0), ours=True),
    },
    "a memory",
)
_BINDING = Object({"capabilityId": Field(NAME, is_required=True), "url": Field(NAME, is_required=True)}, "a binding")
REGISTRY = Object(
    {
        "scope": noted("all agents of the file are indexed", OneOf(("namespace-scoped", "cluster-wide"))),
        "policy": Field(
            Object(
                {
                    "maxDepth": Field(Number(least=1, most=20)),
                    "allowCrossTeam": Field(
                        Flag(), use="noted", note="only agents that stand by themselves are indexed, never inline roles"
                    ),
                },
                "the policy",
            )
        ),
        "maxDepth": Field(Number(least=1, most=20)),
        "mcpBindings": Field(ListOf(_BINDING, unique="capabilityId")),
    },
    "a registry",
)
_WATCHED = Object(
    {
        "name": Field(NAME, is_required=True),
        "onPhase": Field(OneOf(("Succeeded", "Failed", "Cancelled", "TimedOut", "Ended"))),
    },
    "the watched team",
)
_SOURCE = Object(
    {
        "type": Field(OneOf(("cron", "webhook", "team-output", "pipeline-output")), is_required=True),
        "cron": Field(CRON),
        "timeZone": Field(TIME_ZONE, ours=True),
        "startingDeadlineSeconds": Field(Seconds(), ours=True),
        "tokenEnv": Field(NAME, ours=True),
        "teamOutput": Field(_WATCHED),
        "pipelineOutput": Field(_WATCHED),
    },
    "a source",
)
_TARGET = Object(
    {
        "team": Field(NAME),
        "pipeline": Field(NAME),
        "agent": Field(NAME),
        "prompt": Field(TEMPLATE),
        "input": Field(MapOf(TEMPLATE)),
    },
    "a target",
    rules=(only_one("team", "pipeline", "agent"),),
)
EVENT = Object(
    {
        "description": Field(Text(), ours=True),
        "source": Field(_SOURCE, is_required=True),
        "targets": Field(ListOf(_TARGET, least=1, most=20), is_required=True),
        "concurrencyPolicy": Field(OneOf(("Allow", "Forbid", "Replace"))),
        "suspended": Field(Flag()),
    },
    "an event",
)
EVENTS = (
    "TeamSucceeded",
    "TeamFailed",
    "TeamTimedOut",
    "TeamCancelled",
    "BudgetWarning",
    "BudgetExceeded",
    "DailyLimitReached",
    "AgentDegraded",
)
_HEADERS = ListOf(
    Object(
        {
            "name": Field(NAME, is_required=True),
            "value": Field(Text()),
            "valueFrom": Field(KEY_SELECTOR),
            "valueEnv": Field(NAME, ours=True),
        },
        "a header",
        rules=(only_one("value", "valueFrom", "valueEnv"),),
    ),
    unique="name",
)
_WEBHOOK = Object(
    {
        "url": Field(URL),
        "urlFrom": Field(KEY_SELECTOR),
        "urlEnv": Field(NAME, ours=True),
        "method": Field(OneOf(("GET", "POST", "PUT", "PATCH"))),
        "headers": Field(_HEADERS),
    },
    "a webhook",
    rules=(only_one("urlFrom", "urlEnv"),),
)
_SLACK = Object(
    {
        "webhookURLFrom": Field(KEY_SELECTOR),
        "webhookUrlSecretRef": Field(KEY_SELECTOR),
        "webhookUrlEnv": Field(NAME, ours=True),
    },
    "a Slack webhook",
    rules=(only_one("webhookURLFrom", "webhookUrlSecretRef", "webhookUrlEnv"),),
)
_CHANNEL = Object(
    {
        "type": Field(OneOf(("webhook", "slack")), is_required=True),
        "webhook": Field(_WEBHOOK),
        "slack": Field(_SLACK),
        "template": Field(TEMPLATE),
    },
    "a channel",
    rules=(only_one("webhook", "slack"),),
)
_OLD_EVENT = Object(
    {
        "type": Field(OneOf(EVENTS), is_required=True),
        "template": noted("a channel has one template for all events: `channels[].template`", Text()),
    },
    "an event",
)
NOTIFY = Object(
    {
        "description": Field(Text(), ours=True),
        "on": Field(ListOf(OneOf(EVENTS), unique=".")),
        "events": Field(ListOf(_OLD_EVENT, unique="type")),
        "channels": Field(ListOf(_CHANNEL, least=1, most=20)),
        "channel": Field(_CHANNEL),
        "rateLimitSeconds": Field(Number(least=0, most=2_592_000)),
        "rateLimiting": Field(
            Object(
                {
                    "windowSeconds": Field(Number(least=0, most=2_592_000)),
                    "maxPerWindow": noted("one notification is sent in each window", Number(least=1)),
                },
                "the rate limit",
            )
        ),
        "forAll": Field(Flag(), ours=True),
    },
    "a notification policy",
    rules=(only_one("on", "events"), only_one("channels", "channel"), only_one("rateLimitSeconds", "rateLimiting")),
)
_SNAPSHOT = "a run goes by its team's document"
RUN = Object(
    {
        "teamRef": Field(REFERENCE),
        "agent": Field(NAME),
        "prompt": Field(Text()),
        "input": Field(MapOf(Anything())),
        "teamGeneration": noted(_SNAPSHOT, Number()),
        "pipeline": noted(_SNAPSHOT, Anything()),
        "roles": noted(_SNAPSHOT, Anything()),
        "output": noted(_SNAPSHOT, Text()),
        "routing": noted(_SNAPSHOT, Anything()),
        "defaultContextPolicy": noted(_SNAPSHOT, Anything()),
        "timeoutSeconds": noted(_SNAPSHOT, Number(least=1)),
        "maxTokens": noted(_SNAPSHOT, Number(least=1)),
    },
    "a run",
    rules=(only_one("teamRef", "agent"), only_one("teamRef", "prompt")),
)
BUDGET = Object(
    {
        "selector": Field(Anything(("map",))),
        "period": Field(OneOf(("daily", "weekly", "monthly"))),
        "limit": Field(Number(least=0, is_whole=False), is_required=True),
        "currency": Field(Text()),
        "warnAt": Field(Number(least=0, most=100)),
        "hardStop": Field(Flag()),
        "notifyRef": Field(REFERENCE),
    },
    "a budget",
)
