"""`plugin.manifest.json`: what a plugin is, and what it asks for.

Source of fields, hook types, scopes and error texts: AI Studio. Its guide and its code differ; both forms are read:
`"plugin_type": "agent"` alone, and `capabilities.hooks` with `agent` among them.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec
from msgspec import Struct

from worker.agent_plugins.errors import BadPlugin
from worker.agents.model import PermissionScope

MANIFEST_FILE = "plugin.manifest.json"
AGENT = "agent"
HOOK_TYPES = (
    "pre_auth",
    "auth",
    "post_auth",
    "on_response",
    "data_collection",
    "studio_ui",
    "portal_ui",
    "agent",
    "object_hooks",
    "custom_endpoint",
    "resource_provider",
)
SCOPE_ALIASES = {"tools.call": PermissionScope.TOOLS_EXECUTE}
STUDIO_SCOPES = {PermissionScope.TOOLS_EXECUTE: "tools.call"}
"""What a scope is called in AI Studio's own errors, where that is another name than ours."""


class Capabilities(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What of its host a plugin hooks into. Only `agent` is used here."""

    hooks: tuple[str, ...] = ()
    primary_hook: str = ""


class Permissions(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a plugin asks to be allowed; of the rest of AI Studio's fields nothing exists here."""

    services: tuple[str, ...] = ()


class Manifest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A plugin's manifest. Fields that are not known here are skipped: they are AI Studio's own."""

    id: str = ""
    """Agents name their plugin by it."""
    version: str = ""
    name: str = ""
    """For people."""
    description: str = ""
    plugin_type: str = ""
    capabilities: Capabilities | None = None
    permissions: Permissions = Permissions()
    runner: str = ""
    """How it is run: `python` in the worker's own process, or `go-plugin` for a compiled one. Empty: `go-plugin` if
    there is a `command`, else `python`."""
    entry: str = ""
    """Of a Python plugin in a folder: `module:Class`. Empty: the `AgentPlugin` in its `plugin.py`."""
    command: str = ""
    """Of a compiled plugin: its program, relative to the manifest's folder."""
    env: tuple[str, ...] = ()
    """Of a compiled plugin: names of the worker's environment variables that its process is given, beside `PATH` and
    the like."""

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks that it declares, in whichever of the two forms."""
        if self.capabilities is not None:
            return self.capabilities.hooks
        return (self.plugin_type,) if self.plugin_type else ()

    @property
    def scopes(self) -> frozenset[PermissionScope]:
        """What it asks for, of the scopes that exist here."""
        return _known_scopes(self.permissions.services)

    @property
    def runner_kind(self) -> str:
        """`runner`, with its default."""
        return self.runner or ("go-plugin" if self.command else "python")


@functools.lru_cache(maxsize=256)
def _known_scopes(names: tuple[str, ...]) -> frozenset[PermissionScope]:
    known = {scope.value: scope for scope in PermissionScope} | SCOPE_ALIASES
    return frozenset(known[name] for name in names if name in known)


def read_manifest(text: bytes, where: str) -> Manifest:
    """The manifest in a file's text. `where` names the file in errors.

    Raises `BadPlugin`, with AI Studio's words for what its own validation refuses.
    """
    try:
        raw: Any = msgspec.json.decode(text)
        manifest = msgspec.convert(_with_requests(raw), Manifest)
    except msgspec.ValidationError as error:
        raise BadPlugin(f"{where}: manifest does not fit: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadPlugin(f"{where}: manifest is no JSON: {error}") from error
    if problem := problem_of(manifest):
        raise BadPlugin(f"{where}: {problem}")
    return manifest


def problem_of(manifest: Manifest) -> str:
    """Why a manifest cannot be an agent plugin's; empty if it can."""
    for field in ("id", "version", "name"):
        if not getattr(manifest, field).strip():
            return f"manifest {'ID' if field == 'id' else field} is required"
    if len(manifest.id) > 200 or any(char.isspace() or char in "/:" for char in manifest.id):
        return f"manifest ID {manifest.id[:100]!r} must not have spaces, '/' or ':', and at most 200 characters"
    return _problem_of_hooks(manifest) or _problem_of_scopes(manifest)


def _problem_of_hooks(manifest: Manifest) -> str:
    capabilities = manifest.capabilities
    if capabilities is None:
        if not manifest.plugin_type:
            return "manifest must declare capabilities"
    elif not capabilities.hooks:
        return "manifest must declare at least one hook in capabilities.hooks"
    for hook in manifest.hooks:
        if hook not in HOOK_TYPES:
            return f"invalid hook type '{hook}' in manifest - must be one of: [{' '.join(HOOK_TYPES)}]"
    if capabilities is not None and capabilities.primary_hook and capabilities.primary_hook not in capabilities.hooks:
        return f"primary_hook '{capabilities.primary_hook}' must be included in capabilities.hooks array"
    if AGENT not in manifest.hooks:
        return f"plugin does not support agent hook type (supports: [{' '.join(manifest.hooks)}])"
    return ""


def _problem_of_scopes(manifest: Manifest) -> str:
    refused = [name for name in manifest.permissions.services if name.startswith("analytics.")]
    return f"scope '{refused[0]}' is not available to plugins" if refused else ""


def unknown_scopes(manifest: Manifest) -> tuple[str, ...]:
    """Scopes that it asks for and that nothing here grants or needs: AI Studio's own, or misspelt."""
    known = {scope.value for scope in PermissionScope} | set(SCOPE_ALIASES)
    return tuple(name for name in manifest.permissions.services if name not in known)


def _with_requests(raw: Any) -> Any:
    """AI Studio's sample also lists scopes as `scopeRequests`: they count where `permissions.services` is absent."""
    if not isinstance(raw, dict) or not isinstance(requests := raw.get("scopeRequests"), list):
        return raw
    permissions = raw.get("permissions", {})
    if not isinstance(permissions, dict):
        return raw
    if "services" in permissions:
        return raw
    asked = [str(request.get("scope", "")) for request in requests if isinstance(request, dict)]
    return {**raw, "permissions": {**permissions, "services": [name for name in asked if name]}}
