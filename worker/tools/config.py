"""How webhook tools and MCP servers are declared: ark's JSON, and the same values from `shoal.yaml`.

The JSON names and error texts are those of ark's `AGENT_MCP_SERVERS` and `AGENT_WEBHOOK_TOOLS`; fields that ark does
not have are optional. Unknown fields are skipped, so that an operator may be newer than its workers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, field

from queue_backends.messages import JsonObject
from worker.errors import BadSetting, ToolSetupFailed
from worker.tools.redaction import mask_url
from worker.tools.schema import ArgumentSchema

MCP_SERVERS_VARIABLE = "AGENT_MCP_SERVERS"
WEBHOOK_TOOLS_VARIABLE = "AGENT_WEBHOOK_TOOLS"

AuthType = Literal["", "none", "bearer", "mtls"]
Transport = Literal["", "stdio", "http", "sse", "ark"]

_T = TypeVar("_T")

TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_NO_ARGUMENTS: JsonObject = {"type": "object"}


class McpServer(Struct, frozen=True, kw_only=True, rename="camel", repr_omit_defaults=True):
    """An MCP server: a `url` to speak to, or a `command` to start and speak to over its standard streams."""

    name: str
    url: str = ""
    auth_type: AuthType = ""
    """Empty means `none`."""
    token_env_var: str = ""
    """`bearer`: the name of the environment variable that holds the token."""
    cert_file: str = ""
    """`mtls`: path of the client certificate, PEM."""
    key_file: str = ""
    """`mtls`: path of its private key, PEM."""
    headers_env: dict[str, str] = {}
    """HTTP header -> name of the environment variable that holds its value; sent with every request."""
    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    """Environment variables for `command`, beyond PATH, HOME and the like."""
    transport: Transport = ""
    """Empty: `stdio` with a command, else `http`: streamable HTTP, or ark's plain HTTP where the URL answers that."""
    timeout_s: float = field(default=60.0, name="timeoutSeconds")
    """For one tool call."""
    allow: tuple[str, ...] = ()
    """The server's own names of the tools to offer, or patterns (`get_*`); empty: all of them."""
    deny: tuple[str, ...] = ()
    """The server's own names of tools never to offer, or patterns."""
    artifacts: bool = False
    """With a `url`: it can write into the folder in which tasks make their files. A started `command` always can."""

    @property
    def kind(self) -> Literal["stdio", "http", "sse", "ark"]:
        """The transport, with the default resolved."""
        if self.transport:
            return self.transport
        return "stdio" if self.command else "http"

    def __repr__(self) -> str:
        target = self.command or mask_url(self.url)
        return f"McpServer(name={self.name!r}, transport={self.kind!r}, target={target!r}, auth={self.auth_type!r})"


class WebhookTool(Struct, frozen=True, kw_only=True, rename="camel"):
    """A tool that is one HTTP request."""

    name: str
    url: str
    description: str = ""
    method: str = "POST"
    """Any case; empty means POST. GET sends neither body nor arguments."""
    input_schema: str | JsonObject = ""
    """JSON Schema of the arguments, as an object or as JSON text; empty: any object."""
    idempotent: bool = False
    """An interrupted request may be repeated."""
    timeout_s: float = field(default=30.0, name="timeoutSeconds")
    headers_env: dict[str, str] = {}
    """HTTP header -> name of the environment variable that holds its value."""

    @property
    def schema(self) -> JsonObject:
        """The arguments' JSON Schema. Raises `BadSetting`."""
        return _schema_of(self)

    def __repr__(self) -> str:
        return f"WebhookTool(name={self.name!r}, method={self.method!r}, url={mask_url(self.url)!r})"


def parse_mcp_servers(text: str) -> tuple[McpServer, ...]:
    """Read the JSON array of `AGENT_MCP_SERVERS`; empty text means none.

    Raises `BadSetting`: `invalid AGENT_MCP_SERVERS JSON: ...`.
    """
    servers = _decode(text, McpServer, MCP_SERVERS_VARIABLE)
    return _prefixed(MCP_SERVERS_VARIABLE, check_mcp_servers, servers)


def parse_webhook_tools(text: str) -> tuple[WebhookTool, ...]:
    """Read the JSON array of `AGENT_WEBHOOK_TOOLS`; empty text means none.

    Raises `BadSetting`: `invalid AGENT_WEBHOOK_TOOLS JSON: ...`.
    """
    tools = _decode(text, WebhookTool, WEBHOOK_TOOLS_VARIABLE)
    return _prefixed(WEBHOOK_TOOLS_VARIABLE, check_webhook_tools, tools)


def check_mcp_servers(servers: Sequence[McpServer]) -> tuple[McpServer, ...]:
    """Refuse servers that could never work. Raises `BadSetting` naming the server, the value and what is allowed."""
    for server in servers:
        _check_mcp_server(server)
    check_unique("MCP server", [server.name for server in servers])
    return tuple(servers)


def check_webhook_tools(tools: Sequence[WebhookTool]) -> tuple[WebhookTool, ...]:
    """Refuse tools that could never work. Raises `BadSetting` naming the tool, the value and what is allowed."""
    for tool in tools:
        _check_webhook_tool(tool)
    check_unique("webhook tool", [tool.name for tool in tools])
    return tuple(tools)


def _decode(text: str, kind: type[_T], variable: str) -> list[_T]:
    if not text.strip():
        return []
    try:
        return msgspec.json.decode(text, type=list[kind])  # type: ignore[valid-type]  # `kind` is a type at run time
    except msgspec.DecodeError as error:
        raise BadSetting(f"invalid {variable} JSON: {error}") from error


def _prefixed(variable: str, check: Callable[[Sequence[_T]], tuple[_T, ...]], values: Sequence[_T]) -> tuple[_T, ...]:
    try:
        return check(values)
    except BadSetting as error:
        raise BadSetting(f"invalid {variable} JSON: {error}") from error


def _check_mcp_server(server: McpServer) -> None:
    if not re.search(r"[A-Za-z0-9]", server.name):
        raise BadSetting(f"MCP server name {server.name!r} has no letter or digit: its tools are named <name>__<tool>")
    where = f"MCP server {server.name!r}"
    if server.kind == "stdio":
        if not server.command:
            raise BadSetting(f"{where} has transport 'stdio' and no command: set 'command' to the program to start")
        if server.url:
            raise BadSetting(f"{where} has both a command and a url: give one of them")
        if server.headers_env:
            raise BadSetting(f"{where} has headers and a command: headers go with a url")
    elif server.command:
        raise BadSetting(f"{where} has a command and transport {server.transport!r}: a command goes with 'stdio'")
    else:
        _check_url(where, server.url)
    _check_headers(where, server.headers_env)
    _check_timeout(where, server.timeout_s)
    if both := sorted(set(server.allow) & set(server.deny)):
        raise BadSetting(f"{where} both allows and denies {', '.join(both)}: name a tool in one of the lists")


def _check_webhook_tool(tool: WebhookTool) -> None:
    where = f"webhook tool {tool.name!r}"
    if not TOOL_NAME.fullmatch(tool.name):
        raise BadSetting(f"{where}: a tool's name is 1 to 64 letters, digits, '_' or '-'")
    _check_url(where, tool.url)
    _check_headers(where, tool.headers_env)
    _check_timeout(where, tool.timeout_s)
    if tool.method and tool.method.upper() not in _METHODS:
        raise BadSetting(f"{where} has method {tool.method!r}: use one of {', '.join(sorted(_METHODS))}")
    _schema_of(tool)


def _check_url(where: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a broken IPv6 address
        usable = False
    if not usable:
        raise BadSetting(f"{where} has url {mask_url(url)!r}: use http://host/path or https://host/path")


def _check_headers(where: str, headers_env: dict[str, str]) -> None:
    for name in headers_env:
        if not _HEADER_NAME.fullmatch(name):
            raise BadSetting(f"{where} has header {name[:100]!r}: a name is letters, digits and !#$%&'*+.^_`|~-")


def _check_timeout(where: str, timeout_s: float) -> None:
    if not 0 < timeout_s <= 86_400:
        raise BadSetting(f"{where} has a time limit of {timeout_s} seconds: use more than 0 and at most 86400")


def check_unique(what: str, names: Sequence[str]) -> None:
    """Raises `BadSetting` if a name occurs twice."""
    for name in names:
        if names.count(name) > 1:
            raise BadSetting(f"{what} name {name!r} is used {names.count(name)} times: give each its own name")


def _schema_of(tool: WebhookTool) -> JsonObject:
    schema: Any = tool.input_schema
    where = f"webhook tool {tool.name!r}"
    try:
        if isinstance(schema, str):
            schema = msgspec.json.decode(schema) if schema.strip() else _NO_ARGUMENTS
        if not isinstance(schema, dict):
            raise BadSetting(f"{where} has an inputSchema that is {type(schema).__name__}: use a JSON Schema object")
        checked = schema or _NO_ARGUMENTS
        ArgumentSchema(checked)
    except (msgspec.DecodeError, ToolSetupFailed) as error:
        raise BadSetting(f"{where} has a bad inputSchema: {error}") from error
    return checked
