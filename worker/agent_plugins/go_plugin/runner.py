"""A compiled plugin as a `PluginRunner`: a few processes, one message each at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from queue_backends.messages import JsonObject
from worker.agent_plugins.errors import PluginStartFailed
from worker.agent_plugins.go_plugin.events import EventBus
from worker.agent_plugins.go_plugin.process import GoPluginProcess, program_of
from worker.agent_plugins.go_plugin.scope import MessageScope
from worker.agent_plugins.go_plugin.translation import config_texts
from worker.agent_plugins.package import PluginPackage
from worker.agent_plugins.request import AgentRequest, PluginSession
from worker.agent_plugins.services import AgentStream, KeyValues, PluginLog, PluginServices

MOST_PROCESSES = 8
"""Of one plugin and configuration in a worker; more messages wait for one of them."""

log = structlog.get_logger(__name__)


class GoPluginRunner:
    """Processes are started as messages need them, the first one at once; one that died is replaced when it is missed.

    Which process handles a message of a session is the one that had its last, if it is free.
    """

    def __init__(self, package: PluginPackage) -> None:
        self._package = package
        self._config: dict[str, str] = {}
        self._kv: KeyValues | None = None
        self._log: PluginLog | None = None
        self._events = EventBus()
        self._room = asyncio.Semaphore(MOST_PROCESSES)
        self._free: list[GoPluginProcess] = []
        self._busy: set[GoPluginProcess] = set()
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def problem(self) -> str:
        """None that lasts: processes are replaced."""
        return ""

    async def initialize(self, config: JsonObject, kv: KeyValues, log: PluginLog) -> None:
        """Start the first process. Raises `PluginStartFailed`."""
        program_of(self._package)
        self._config, self._kv, self._log = config_texts(config), kv, log
        self._free.append(await self._started())

    async def session_ready(self, session: PluginSession) -> None:
        """AI Studio's plugins learn of their host's readiness by `OpenSession`, once a process, and of no session."""

    async def session_closing(self, session: PluginSession) -> None:
        """They hear nothing of it either."""
        for process in (*self._free, *self._busy):
            process.sessions.discard(session.id)

    async def handle_message(self, request: AgentRequest, stream: AgentStream, services: PluginServices) -> None:
        """Answer one message, as soon as a process is free. Raises `PluginCallFailed`, `PluginStartFailed`."""
        async with self._room, self._process(request.session_id) as process:
            await process.handle(MessageScope(request, services), stream)

    @asynccontextmanager
    async def _process(self, session_id: str) -> AsyncIterator[GoPluginProcess]:
        self._bury_dead()
        process = self._take(session_id) or await self._started()
        self._busy.add(process)
        try:
            yield process
        finally:
            self._busy.discard(process)
            if process.is_usable:
                self._free.append(process)
            else:
                self._end(process)

    def _take(self, session_id: str) -> GoPluginProcess | None:
        """A free process, best the one that knows the session; None if there is none."""
        if not self._free:
            return None
        known = [each for each in self._free if session_id and session_id in each.sessions]
        process = known[0] if known else self._free[-1]
        self._free.remove(process)
        return process

    async def _started(self) -> GoPluginProcess:
        if self._kv is None or self._log is None:
            raise PluginStartFailed(f"plugin {self._package.id!r} was not initialised")
        process = GoPluginProcess(self._package, self._config, self._kv, self._log, self._events)
        await process.start()
        return process

    def _bury_dead(self) -> None:
        for process in [each for each in self._free if not each.is_usable]:
            self._free.remove(process)
            log.warning("a plugin's process has ended by itself", plugin=self._package.id)
            self._end(process)

    def _end(self, process: GoPluginProcess) -> None:
        """End a process that gets no message any more. A message that was cancelled does not wait for it."""
        ending = asyncio.create_task(process.stop(), name=f"end of a process of plugin {self._package.id}")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def shutdown(self) -> None:
        """End all processes."""
        processes, self._free = [*self._free, *self._busy], []
        self._busy.clear()
        for process in processes:
            self._end(process)
        if self._ending:
            await asyncio.wait(self._ending)
