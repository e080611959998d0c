"""Plugins that were declared over an API, not installed: a program, and what it shall be started with."""

from __future__ import annotations

from pathlib import PurePosixPath

from msgspec import Struct

from queue_backends.messages import JsonObject
from worker.objects import BadObject

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
