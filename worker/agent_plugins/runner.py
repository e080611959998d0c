"""How the code of a plugin is run: one `PluginRunner` for each plugin and configuration in a process.

`python` runs it in the worker's own event loop, `go-plugin` as a supervised child process. A runner knows nothing of
queues, journals and budgets: those are behind the services that it is given.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol

from queue_backends.messages import JsonObject
from worker.agent_plugins.errors import BadPlugin
from worker.agent_plugins.package import PluginPackage
from worker.agent_plugins.request import AgentRequest, PluginSession
from worker.agent_plugins.services import AgentStream, KeyValues, PluginLog, PluginServices


class PluginRunner(Protocol):
    """The code of one plugin with one configuration. Messages come several at a time."""

    async def initialize(self, config: JsonObject, kv: KeyValues, log: PluginLog) -> None:
        """Once, before anything else. Raises whatever keeps it from working: then it is never called again."""
        ...

    @property
    def problem(self) -> str:
        """Why it cannot be used any more, such as a child process that has ended: another one is made then. Empty
        while all is well."""
        ...

    async def session_ready(self, session: PluginSession) -> None:
        """A session is new to this process; its first message follows. What this raises is logged."""
        ...

    async def handle_message(self, request: AgentRequest, stream: AgentStream, services: PluginServices) -> None:
        """Answer one message. Raises what makes this attempt fail. Honours cancellation.

        `services` are this message's own: they must not be used for another one, nor afterwards.
        """
        ...

    async def session_closing(self, session: PluginSession) -> None:
        """A session that was made ready has ended, or leaves this process."""
        ...

    async def shutdown(self) -> None:
        """The end; no message is being handled any more."""
        ...


RunnerFactory = Callable[[PluginPackage], PluginRunner]
"""Makes a runner without starting anything. Raises `BadPlugin`."""

_registered: dict[str, RunnerFactory] = {}


def register_runner(kind: str, factory: RunnerFactory) -> None:
    """Run plugins whose manifest names this `runner` with `factory`."""
    _registered[kind] = factory


def runner_of(package: PluginPackage) -> PluginRunner:
    """A runner for a plugin. Raises `BadPlugin`."""
    kind = package.manifest.runner_kind
    factory = _registered.get(kind) or _built_in(kind)
    if factory is None:
        known = ", ".join(sorted({"go-plugin", "python", *_registered}))
        raise BadPlugin(f"plugin {package.id!r}: no runner is called {kind!r}; there are: {known}")
    return factory(package)


def _built_in(kind: str) -> RunnerFactory | None:
    if kind == "python":
        from worker.agent_plugins.python_runner import PythonRunner

        return PythonRunner
    if kind == "go-plugin":
        try:
            module = importlib.import_module("worker.agent_plugins.go_plugin")  # gRPC takes 0.2 s to import
        except ImportError as error:
            raise BadPlugin(f"compiled plugins need gRPC: pip install 'shoal[grpc]' ({error})") from error
        factory: RunnerFactory = module.GoPluginRunner
        return factory
    return None
