"""MCP servers and webhook tools that agents declare."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, count
from pathlib import PurePosixPath
from typing import Any

from worker.errors import BadSetting
from worker.teams.kinds.documents import Documents
from worker.teams.kinds.objects import Fields
from worker.teams.kinds.references import name_of
from worker.teams.kinds.sources import is_folder_name, secret_variable
from worker.tools.config import McpServer, WebhookTool, check_mcp_servers, check_webhook_tools

MOUNTED = "/etc/shoal/secrets"
"""Where the files of mTLS secrets are looked for, unless SHOAL_SECRETS_DIR says where."""

_NO_AGENT_TOOLS = (
    "agents are not offered as MCP servers, and this one is left out: agents call each other in teams (canDelegate)"
)


class Tools:
    """Compiles what agents say of their tools."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._findings = documents.findings
        self._bindings = {
            binding.text("capabilityId"): binding.text("url")
            for registry in documents.all("registry")
            for binding in registry.spec.many("mcpBindings")
        }

    def servers(self, spec: Fields) -> tuple[tuple[McpServer, ...], tuple[tuple[str, str], ...]]:
        """The MCP servers, and what the prompt says of them: (server, instructions)."""
        declared = (*spec.many("mcpServers"), *self._grouped(spec, "mcp"))
        self._check_security(spec, declared)
        permissions = spec.one("guardrails").one("tools")
        servers: list[McpServer] = []
        said: list[tuple[str, str]] = []
        for found in declared:
            if any(server.name == found.text("name") for server in servers):
                self._findings.error(found.at("name"), f"MCP server {found.text('name')!r} is there twice")
                continue
            if "swarmAgentRef" in found:
                self._findings.note_once("agent as a server", found.key("swarmAgentRef"), _NO_AGENT_TOOLS)
                continue
            server = self._server(found, permissions)
            if server is not None:
                servers.append(server)
            if text := (found.text("instructions") or found.text("guidance")).strip():
                said.append((found.text("name"), text))
        return tuple(servers), tuple(said)

    def webhooks(self, spec: Fields) -> tuple[WebhookTool, ...]:
        """The webhook tools."""
        tools = spec.get("tools")
        listed = spec.many("tools") if isinstance(tools, list) else self._grouped(spec, "webhooks")
        found = [self._webhook(each) for each in listed if not is_denied(each.text("name"), spec)]
        return tuple(tool for tool in found if tool is not None)

    def _grouped(self, spec: Fields, name: str) -> list[Fields]:
        tools = spec.get("tools")
        return tools.many(name) if isinstance(tools, Fields) else []

    def _server(self, found: Fields, permissions: Fields) -> McpServer | None:
        name = found.text("name")
        allow, deny = _permitted(name, permissions)
        if "*" in deny:
            return None
        auth = self._auth(found)
        url = found.text("url")
        if "capabilityRef" in found:
            url = self._bound(found)
        server = McpServer(
            name=name,
            url=url,
            command=found.text("command"),
            args=found.texts("args"),
            env=found.get("env") or {},
            transport=found.get("transport", ""),
            timeout_s=float(found.get("timeoutSeconds", 60)),
            allow=found.texts("allow") or allow,
            deny=(*found.texts("deny"), *deny),
            headers_env=self._headers(found),
            **auth,
        )
        try:
            check_mcp_servers([server])
        except BadSetting as error:
            if url or "capabilityRef" not in found:
                self._findings.error(found.node, str(error))
        return server

    def _bound(self, found: Fields) -> str:
        capability = name_of(found.get("capabilityRef"))
        url = self._bindings.get(capability, "")
        if not url:
            self._findings.error(
                found.at("capabilityRef"),
                f"no registry of the file binds capability {capability!r} to an MCP server: "
                "add it to its mcpBindings, or give the server a url",
            )
        return url

    def _auth(self, found: Fields) -> dict[str, Any]:
        auth = found.one("auth")
        if "tokenEnvVar" in found:
            return {"auth_type": "bearer", "token_env_var": found.text("tokenEnvVar")}
        token = auth.one("bearer").one("secretKeyRef") if "bearer" in auth else auth.one("tokenSecretRef")
        if "name" in token:
            return {"auth_type": "bearer", "token_env_var": self._documents.sources.secret(token, self._findings)}
        secret = name_of(auth.one("mtls").get("secretRef")) or name_of(auth.get("secretRef"))
        if secret:
            if not is_folder_name(secret):
                self._findings.error(auth.node, f"{secret[:100]!r} is no name of a Secret")
            folder = PurePosixPath(self._documents.sources.folder or MOUNTED) / secret
            return {"auth_type": "mtls", "cert_file": str(folder / "tls.crt"), "key_file": str(folder / "tls.key")}
        if auth.get("type") in ("bearer", "mtls"):
            needed = "tokenSecretRef" if auth.get("type") == "bearer" else "secretRef"
            self._findings.error(auth.node, f"authentication of type {auth.get('type')} needs {needed}")
        return {}

    def _webhook(self, found: Fields) -> WebhookTool | None:
        if "{{" in found.text("url"):
            self._findings.warning(found.at("url"), "templates are not evaluated in a tool's url")
        tool = WebhookTool(
            name=found.text("name"),
            url=found.text("url"),
            description=found.text("description"),
            method=found.get("method", "POST"),
            input_schema=found.get("schema") or found.get("inputSchema") or "",
            idempotent=bool(found.get("idempotent")),
            timeout_s=float(found.get("timeoutSeconds", 30)),
            headers_env=self._headers(found),
        )
        try:
            check_webhook_tools([tool])
        except BadSetting as error:
            at = "schema" if "schema" in found else "inputSchema"
            self._findings.error(found.at(at) if "inputSchema" in str(error) else found.node, str(error))
            return None
        return tool

    def _headers(self, found: Fields) -> dict[str, str]:
        """Of an MCP server or a webhook tool: header -> the variable that holds its value."""
        return {header.text("name"): self._header(found, header) for header in found.many("headers")}

    def _header(self, found: Fields, header: Fields) -> str:
        sources = self._documents.sources
        if "secretKeyRef" in header:
            return sources.secret(header.one("secretKeyRef"), self._findings)
        stem = secret_variable(found.text("name"), header.text("name"))
        names = chain((stem,), (f"{stem}_{number}" for number in count(2)))
        variable = next(name for name in names if sources.env.get(name, header.text("value")) == header.text("value"))
        sources.put(variable, header.text("value"))
        self._findings.note_once(
            f"header {variable}",
            header.node,
            f"the value of header {header.text('name')!r} is not stored with the team: workers of a fleet take it from "
            f"the environment variable {variable}",
        )
        return variable

    def _check_security(self, spec: Fields, declared: Sequence[Fields]) -> None:
        """The strictest of all settings of the file counts, as kubeswarm has it."""
        for document in self._documents.all("settings"):
            security = document.spec.one("security")
            prefixes = security.texts("mcpAllowlist")
            for found in declared:
                if prefixes and not found.text("url").startswith(prefixes):
                    self._findings.error(
                        found.at("url"),
                        f"{document.kind} {document.name!r} allows MCP servers of {', '.join(prefixes)} alone",
                    )
                if security.get("requireMCPAuth") and "auth" not in found and "tokenEnvVar" not in found:
                    self._findings.error(
                        found.node, f"{document.kind} {document.name!r} requires MCP servers to have `auth`"
                    )


def _permitted(server: str, permissions: Fields) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What `guardrails.tools` allows and denies of a server, as patterns of its own tools' names."""
    denied = _patterns(server, permissions.texts("deny"))
    allowed = tuple(name for name in _patterns(server, permissions.texts("allow")) if name not in denied)
    if "*" in denied or ("allow" in permissions and not allowed):
        return (), ("*",)
    return (() if "*" in allowed else allowed), denied


def _patterns(server: str, entries: Sequence[str]) -> tuple[str, ...]:
    found = []
    for entry in entries:
        of, slash, tool = entry.partition("/")
        if slash and _matches(server, of):
            found.append(tool or "*")
    return tuple(found)


def _matches(text: str, pattern: str) -> bool:
    """`*` is any text. As a regular expression, a few stars would take for ever."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    at = len(first) if text.startswith(first) else -1
    for part in rest[:-1]:
        found = text.find(part, at) if at >= 0 else -1
        at = found + len(part) if found >= 0 else -1
    return 0 <= at <= len(text) - len(rest[-1]) and text.endswith(rest[-1])


def is_denied(tool: str, spec: Fields) -> bool:
    """Whether `guardrails.tools.deny` has a tool that belongs to no server."""
    return any(_matches(tool, pattern) for pattern in spec.one("guardrails").one("tools").texts("deny"))


def tool_patterns(entries: Sequence[str]) -> tuple[str, ...]:
    """`server/tool` as the name that the model knows: `server__tool`."""
    return tuple(entry.replace("/", "__", 1) for entry in entries)
