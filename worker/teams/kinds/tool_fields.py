"""What agents may say of their tools: MCP servers and webhooks."""

from __future__ import annotations

from worker.teams.kinds.objects import Field, Object
from worker.teams.kinds.references import KEY_SELECTOR, NAME, REFERENCE, only_one
from worker.teams.kinds.shapes import Anything, Either, Flag, ListOf, MapOf, Number, OneOf, Text

_TRUST = Field(
    OneOf(("internal", "external", "sandbox")),
    use="noted",
    note="there are no trust levels: arguments always have to fit the tool's schema",
)
HEADERS = ListOf(
    Object(
        {"name": Field(NAME, is_required=True), "value": Field(Text()), "secretKeyRef": Field(KEY_SELECTOR)},
        "a header",
        rules=(only_one("value", "secretKeyRef"),),
    ),
    unique="name",
)
_AUTH = Object(
    {
        "bearer": Field(Object({"secretKeyRef": Field(KEY_SELECTOR, is_required=True)}, "bearer authentication")),
        "mtls": Field(Object({"secretRef": Field(REFERENCE, is_required=True)}, "mTLS authentication")),
        "type": Field(OneOf(("none", "bearer", "mtls"))),
        "tokenSecretRef": Field(KEY_SELECTOR),
        "secretRef": Field(REFERENCE),
    },
    "authentication",
    rules=(only_one("bearer", "mtls"),),
)
MCP_SERVER = Object(
    {
        "name": Field(NAME, is_required=True),
        "url": Field(Text()),
        "capabilityRef": Field(REFERENCE),
        "swarmAgentRef": Field(REFERENCE),
        "trust": _TRUST,
        "instructions": Field(Text()),
        "guidance": Field(Text()),
        "auth": Field(_AUTH),
        "headers": Field(HEADERS),
        "discovery": Field(
            Anything(("map",)),
            use="noted",
            note="lists of tools are always kept up to date, as servers tell of changes",
        ),
        "transport": Field(OneOf(("stdio", "http", "sse", "ark")), ours=True),
        "command": Field(Text(), ours=True),
        "args": Field(ListOf(Text()), ours=True),
        "env": Field(MapOf(Text()), ours=True),
        "timeoutSeconds": Field(Number(least=1, most=86_400), ours=True),
        "allow": Field(ListOf(NAME), ours=True),
        "deny": Field(ListOf(NAME), ours=True),
        "tokenEnvVar": Field(NAME, ours=True),
    },
    "an MCP server",
    rules=(only_one("url", "capabilityRef", "swarmAgentRef", "command"), only_one("auth", "tokenEnvVar")),
)
WEBHOOK = Object(
    {
        "name": Field(NAME, is_required=True),
        "url": Field(Text(is_required=True, means="an http or https URL"), is_required=True),
        "method": Field(OneOf(("GET", "POST", "PUT", "PATCH", "DELETE"))),
        "description": Field(Text()),
        "trust": _TRUST,
        "schema": Field(Anything(("map", "scalar"))),
        "inputSchema": Field(Anything(("map", "scalar"))),
        "headers": Field(HEADERS),
        "timeoutSeconds": Field(Number(least=1, most=86_400), ours=True),
        "idempotent": Field(Flag(), ours=True),
    },
    "a webhook tool",
    rules=(only_one("schema", "inputSchema"),),
)
TOOLS = Either(
    {
        "map": Object(
            {
                "mcp": Field(ListOf(MCP_SERVER, unique="name")),
                "webhooks": Field(ListOf(WEBHOOK, unique="name")),
                "allow": Field(ListOf(NAME), ours=True),
            },
            "the tools",
        ),
        "list": ListOf(WEBHOOK, unique="name"),
    }
)
