"""`shoal plugin validate`: everything that can be said of a plugin without running an agent."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from worker.agent_plugins.config_schema import SCHEMA_FILE
from worker.agent_plugins.errors import BadPlugin
from worker.agent_plugins.manifest import unknown_scopes
from worker.agent_plugins.package import PluginPackage, read_package
from worker.agent_plugins.plugin import AgentPlugin
from worker.agent_plugins.runner import runner_of
from worker.agent_plugins.trial import plugin_folder

_METHODS = ("initialize", "on_session_ready", "handle_message", "on_session_closing", "shutdown")


class Remark(Struct, frozen=True, kw_only=True):
    """Something about a plugin; an error keeps it from working."""

    text: str
    is_error: bool = True


def validate(path: str | Path) -> tuple[PluginPackage | None, list[Remark]]:
    """The plugin in a folder, if it can be read, and what is to say about it."""
    try:
        package = read_package(plugin_folder(path))
    except BadPlugin as error:
        return None, [Remark(text=str(error))]
    return package, [*_remarks(package)]


def _remarks(package: PluginPackage) -> Iterator[Remark]:
    yield from (Remark(text=problem) for problem in _problems_of_code(package))
    for scope in unknown_scopes(package.manifest):
        yield Remark(text=f"scope {scope!r} is none of this host's: nothing here needs it", is_error=False)
    if not (package.folder / SCHEMA_FILE).is_file():
        yield Remark(text=f"there is no {SCHEMA_FILE}: agents may be configured with anything", is_error=False)
    for problem in package.schema.errors({}):
        yield Remark(text=f"an agent without a config does not fit the schema: {problem}", is_error=False)


def _problems_of_code(package: PluginPackage) -> Iterator[str]:
    try:
        runner_of(package)
        if package.manifest.runner_kind != "python":
            return
        from worker.agent_plugins.python_runner import load_class

        found = load_class(package)
    except BadPlugin as error:
        yield str(error)
        return
    if found.handle_message is AgentPlugin.handle_message:
        yield f"{found.__name__} has no method handle_message(self, request, stream)"
    for name in _METHODS:
        if not inspect.iscoroutinefunction(getattr(found, name)):
            yield f"{found.__name__}.{name} is no coroutine: write `async def {name}`"
