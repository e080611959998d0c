"""Plugins that were declared over an API, not installed: a program, and what it shall be started with."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from msgspec import Struct

from queue_backends.messages import JsonObject
from worker.agent_plugins.config_schema import ConfigSchema
from worker.agent_plugins.manifest import AGENT, Manifest, Permissions
from worker.agent_plugins.package import PluginPackage
from worker.agents.model import PermissionScope
from worker.objects import BadObject, Stored

FIRST_NUMBER = 3_000_000_000
"""Declared plugins have numbers from here on, which no installed one has; all fit into 32 bits."""


class DeclaredPlugin(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A program that speaks AI Studio's plugin protocol."""

    slug: str
    name: str = ""
    namespace: str = ""
    description: str = ""
    command: str = ""
    """The program's path, within the folder of agent plugins of each worker, and relative to it."""
    checksum: str = ""
    """SHA-256 of the program, hexadecimal; empty: not checked."""
    config: JsonObject = {}
    """What it is initialised with."""
    hook_types: tuple[str, ...] = ("agent",)
    is_active: bool = True


def check_declared_plugin(plugin: DeclaredPlugin) -> None:
    """Raise `BadObject` for a program that lies outside the folder of plugins."""
    path = PurePosixPath(plugin.command)
    if not plugin.command or path.is_absolute() or ".." in path.parts or not plugin.command.isprintable():
        raise BadObject(
            f"plugin {plugin.slug!r}: command is {plugin.command[:200]!r}: give the program's path within the folder "
            "of agent plugins (SHOAL_AGENT_PLUGINS_DIR), without '..'"
        )


def declared_package(stored: Stored[DeclaredPlugin], folder: str | Path) -> PluginPackage:
    """The same as one that is found. Whoever declares a plugin authorises it: it may do what its agents' apps grant."""
    plugin = stored.value
    manifest = Manifest(
        id=plugin.slug,
        version=f"declared.{stored.version}",
        name=plugin.name or plugin.slug,
        description=plugin.description,
        plugin_type=AGENT,
        permissions=Permissions(services=tuple(scope.value for scope in PermissionScope)),
        runner="go-plugin",
        command=plugin.command,
    )
    problem = "" if plugin.is_active else "plugin is not active"
    return PluginPackage(
        id=plugin.slug,
        manifest=manifest,
        schema=ConfigSchema(),
        folder=Path(folder or "/nonexistent"),
        problem=problem,
        base_config=plugin.config,
        checksum=plugin.checksum,
    )
