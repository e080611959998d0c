"""One process of a compiled plugin: started, shaken hands with, served, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from worker.agent_plugins.errors import AgentPluginError, PluginStartFailed
from worker.agent_plugins.go_plugin.broker import SERVICE_ID, Broker
from worker.agent_plugins.go_plugin.channel import PluginCallFailed, PluginChannel
from worker.agent_plugins.go_plugin.chunks import ChunkForwarder
from worker.agent_plugins.go_plugin.events import EventBus
from worker.agent_plugins.go_plugin.handshake import environment, read_handshake
from worker.agent_plugins.go_plugin.host_api import HostApi
from worker.agent_plugins.go_plugin.host_server import host_server
from worker.agent_plugins.go_plugin.messages import (
    AgentMessageChunk,
    CloseReason,
    CloseSessionRequest,
    Empty,
    HealthRequest,
    HealthResponse,
    InitRequest,
    InitResponse,
    OpenSessionRequest,
    OpenSessionResponse,
    ShutdownRequest,
    StdioData,
)
from worker.agent_plugins.go_plugin.output_log import OutputLog
from worker.agent_plugins.go_plugin.scope import MessageScope
from worker.agent_plugins.go_plugin.translation import message_request
from worker.agent_plugins.package import PluginPackage
from worker.agent_plugins.services import AgentStream, KeyValues, PluginLog
from worker.trace_context import carrier
from worker.warded_process import end_warded, next_line, start_warded

HANDSHAKE_LIMIT_S = 25.0
INITIALIZE_LIMIT_S = 25.0
HEALTH_LIMIT_S = 10.0
SESSION_MS = 30_000
"""So long `OpenSession` may block in the plugin."""
ANNOUNCE_EVERY_S = 2.0
"""Until the plugin has dialled: an announcement is forgotten after five seconds, and a dial waits as long for one."""
CLOSE_LIMIT_S = 3.0
"""For the calls that say goodbye."""
EXIT_LIMIT_S = 2.0
"""From the goodbye to SIGTERM."""
KILL_GRACE_S = 1.0
"""From SIGTERM to SIGKILL."""
AFTER_FINAL_S = 5.0
"""So long a plugin may go on after its final chunk."""
IDLE_WITHIN_S = 1.0
"""So long what it has asked its host for may take then."""
DEATH_NOTICE_S = 2.0
"""So long we wait for the end of a process whose connection has broken."""
READ_OUT_S = 0.5
"""So long the last words of a process that has ended are waited for: what it has started may hold its pipes open."""
_SERVING = 1

log = structlog.get_logger(__name__)


class GoPluginProcess:
    """Handles one message at a time: what it asks its host for does not say which message it is about."""

    def __init__(
        self, package: PluginPackage, config: Mapping[str, str], kv: KeyValues, plugin_log: PluginLog, events: EventBus
    ) -> None:
        self._package = package
        self._config = config
        self._log = plugin_log
        self._api = HostApi(package.number, kv, events)
        self._folder = ""
        self._process: asyncio.subprocess.Process | None = None
        self._channel: PluginChannel | None = None
        self._broker: Broker | None = None
        self._server: Any = None
        self._side: list[asyncio.Task[None]] = []
        self._readers: list[asyncio.Task[None]] = []
        self.sessions: set[str] = set()
        """Sessions whose messages it has handled."""
        self.is_spoiled = False
        """A message did not end in order: what goes on of it must not meet the next one."""

    @property
    def is_usable(self) -> bool:
        """Whether it may be given another message."""
        return not self.is_spoiled and self._process is not None and self._process.returncode is None

    # Start

    async def start(self) -> None:
        """Start the program and initialise it. Raises `PluginStartFailed`; then nothing is left of it."""
        try:
            await self._start()
        except BaseException as error:
            try:
                if isinstance(error, PluginCallFailed):
                    error = await self._explained(error)
            finally:
                await asyncio.shield(self.stop())
            if isinstance(error, AgentPluginError) and not isinstance(error, PluginStartFailed):
                raise PluginStartFailed(f"plugin initialization failed: {error}") from error
            raise

    async def _start(self) -> None:
        program = program_of(self._package)
        await asyncio.to_thread(self._package.check_program)
        self._folder = tempfile.mkdtemp(prefix="shoal-plugin-")
        self._process = await start_warded(
            program,
            env={**environment(self._package.manifest.env), "TMPDIR": self._folder},  # its own socket lies there, too
            grace_s=KILL_GRACE_S,
            takes_stderr=True,
            owned_folder=self._folder,
        )
        self._read(self._process.stderr, "stderr")
        handshake = read_handshake(await self._first_line(program))
        self._read(self._process.stdout, "stdout")
        self._channel = PluginChannel(handshake.target)
        await self._check_health()
        address = str(Path(self._folder) / "host")
        self._server = host_server(self._api, address)
        await self._server.start()
        self._broker = Broker(self._channel, address)
        self._watch(self._broker.run(), "broker")
        self._watch(self._take_output(), "stdio")
        self._watch(self._keep_announcing(), "announcements")
        await self._initialize()
        self._watch(self._keep_session(), "session")

    async def _first_line(self, program: Path) -> bytes:
        assert self._process is not None  # noqa: S101 - it was started
        try:
            async with asyncio.timeout(HANDSHAKE_LIMIT_S):
                line = await next_line(self._process.stdout)
        except TimeoutError as error:
            raise PluginStartFailed(f"{program.name} has said nothing within {HANDSHAKE_LIMIT_S:g} s") from error
        if not line:
            code = await self._process.wait()
            raise PluginStartFailed(f"{program.name} ended with exit code {code} before it had said where it listens")
        return line

    async def _check_health(self) -> None:
        answer = await self._said_to.unary(
            "/grpc.health.v1.Health/Check", HealthRequest(service="plugin"), HealthResponse, timeout_s=HEALTH_LIMIT_S
        )
        if answer.status != _SERVING:
            raise PluginStartFailed(f"the plugin's health is {answer.status}, not SERVING")

    async def _initialize(self) -> None:
        told = {
            **self._config,
            **{name: str(self._package.number) for name in ("plugin_id", "_plugin_id")},
            **{name: str(SERVICE_ID) for name in ("service_broker_id", "_service_broker_id")},
            "has_service_api": "true",
        }
        await self._announce()
        answer = await self._said_to.unary(
            _method("Initialize"), InitRequest(config=told), InitResponse, timeout_s=INITIALIZE_LIMIT_S
        )
        if not answer.success:
            raise PluginStartFailed(f"plugin initialization failed: {answer.error_message or 'it did not say why'}")

    @property
    def _said_to(self) -> PluginChannel:
        assert self._channel is not None  # noqa: S101 - it was opened
        return self._channel

    async def _announce(self) -> None:
        assert self._broker is not None  # noqa: S101 - it was opened
        await self._broker.announce()

    # Messages

    async def handle(self, scope: MessageScope, stream: AgentStream) -> None:
        """Let it answer one message. Raises `PluginCallFailed`; cancelled, or with calls to its host that outlive the
        message, it spoils the process."""
        self._api.scope = scope
        self.sessions.add(scope.request.session_id)
        self.is_spoiled = True
        try:
            await self._announce()
            await self._forward(scope, stream)
            self.is_spoiled = not await scope.is_idle(IDLE_WITHIN_S)
        except PluginCallFailed as error:
            raise await self._explained(error) from error
        finally:
            self._api.scope = None
        if self.is_spoiled:
            log.warning("a plugin's process is ended: it still asks for something after its message", **self._named)

    async def _explained(self, error: PluginCallFailed) -> PluginCallFailed:
        """The same, or that the process has ended, if that is why."""
        if error.status != "UNAVAILABLE" or self._process is None:
            return error
        try:
            async with asyncio.timeout(DEATH_NOTICE_S):
                code = await self._process.wait()
        except TimeoutError:
            return error
        return PluginCallFailed(error.method, error.status, f"the plugin's process has ended with exit code {code}")

    async def _forward(self, scope: MessageScope, stream: AgentStream) -> None:
        """Pass its chunks on up to the final one, and let it return then."""
        forwarder = ChunkForwarder(stream)
        request = message_request(scope, plugin=self._package.number, service_id=SERVICE_ID, trace=carrier())
        chunks = self._said_to.stream(_method("HandleAgentMessage"), request, AgentMessageChunk)
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                await forwarder.say(chunk)
                if chunk.is_final:
                    await stream.done()
                    break
            async with asyncio.timeout(AFTER_FINAL_S):
                async for _ in chunks:
                    continue

    # Beside the messages

    async def _keep_session(self) -> None:
        """AI Studio's session loop: through it a plugin learns when it may use its host."""
        request = OpenSessionRequest(
            service_broker_id=SERVICE_ID, plugin_id=self._package.number, timeout_ms=SESSION_MS
        )
        while True:
            began = time.monotonic()
            try:
                await self._announce()
                answer = await self._said_to.unary(
                    _method("OpenSession"), request, OpenSessionResponse, timeout_s=SESSION_MS / 1000 + 10
                )
            except PluginCallFailed as error:
                if error.status == "UNIMPLEMENTED" or not self.is_running:
                    return
                await asyncio.sleep(1)
                continue
            if answer.close_reason == CloseReason.EXPLICIT_CLOSE:
                return
            if answer.close_reason != CloseReason.TIMEOUT or time.monotonic() - began < 1:
                await asyncio.sleep(1)

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.returncode is None

    @property
    def _named(self) -> dict[str, str]:
        return {"plugin": self._package.id}

    async def _keep_announcing(self) -> None:
        """However late the plugin dials, it finds an announcement."""
        with contextlib.suppress(PluginCallFailed):  # whoever needs the broker hears of it
            while not self._api.was_asked.is_set():
                await self._announce()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ANNOUNCE_EVERY_S):
                        await self._api.was_asked.wait()

    def _read(self, pipe: asyncio.StreamReader | None, name: str) -> None:
        assert pipe is not None  # noqa: S101 - it was asked for
        reading = OutputLog(self._log, name).take_all(pipe)
        self._readers.append(asyncio.create_task(reading, name=f"{name} of plugin {self._package.id}"))

    async def _take_output(self) -> None:
        outputs = {1: OutputLog(self._log, "stdout"), 2: OutputLog(self._log, "stderr")}
        try:
            with contextlib.suppress(PluginCallFailed):  # a plugin may do without it
                async for data in self._said_to.stream("/plugin.GRPCStdio/StreamStdio", Empty(), StdioData):
                    if (output := outputs.get(data.channel)) is not None:
                        await output.take(data.data)
        finally:
            for output in outputs.values():
                output.end()

    def _watch(self, work: Any, name: str) -> None:
        self._side.append(asyncio.create_task(work, name=f"{name} of plugin {self._package.id}"))

    # End

    async def stop(self) -> None:
        """End it: goodbye, then by force. Nothing is left when this returns."""
        try:
            await self._say_goodbye()
        finally:
            await asyncio.shield(self._take_down())

    async def _say_goodbye(self) -> None:
        if self._channel is None or self._process is None or not self.is_running:
            return
        goodbyes = (
            (_method("CloseSession"), CloseSessionRequest(reason="plugin_unload")),
            (_method("Shutdown"), ShutdownRequest(timeout_seconds=int(CLOSE_LIMIT_S))),
            ("/plugin.GRPCController/Shutdown", Empty()),
        )
        until = time.monotonic() + CLOSE_LIMIT_S
        for method, request in goodbyes:
            with contextlib.suppress(PluginCallFailed):
                left_s = max(0.1, until - time.monotonic())
                await self._channel.unary(method, request, Empty, timeout_s=left_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXIT_LIMIT_S):
                await self._process.wait()

    async def _take_down(self) -> None:
        for task in self._side:
            task.cancel()
        if self._broker is not None:
            self._broker.close()
        if self._process is not None:
            await end_warded(self._process, within_s=2 * KILL_GRACE_S + 2)
        if self._readers:
            await asyncio.wait(self._readers, timeout=READ_OUT_S)
            for task in self._readers:
                task.cancel()
        for result in await asyncio.gather(*self._side, *self._readers, return_exceptions=True):
            if isinstance(result, Exception):
                log.warning("a part of a plugin's process failed", error=str(result), **self._named)
        if self._channel is not None:
            await self._channel.aclose()
        if self._server is not None:
            await self._server.stop(0)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def program_of(package: PluginPackage) -> Path:
    """The program of a compiled plugin. Raises `PluginStartFailed`.

    `command` is a path inside the plugin's own folder, or AI Studio's `file:///…` to it: what else runs on a worker is
    not for a manifest to say.
    """
    command = package.manifest.command.removeprefix("file://")
    folder = package.folder.resolve()
    program = (folder / command).resolve()
    if not command or not program.is_relative_to(folder):
        raise PluginStartFailed(f"command {command[:200]!r} of plugin {package.id!r} is no file in {folder}")
    if not program.is_file() or not os.access(program, os.X_OK):
        raise PluginStartFailed(f"{program} is no executable file")
    return program


def _method(name: str) -> str:
    return f"/plugin.PluginService/{name}"
