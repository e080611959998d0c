"""Tools of one MCP server: a pooled session for the worker's whole life, opened again after each loss.

One task owns the session, because the SDK's cancel scopes must be entered and left by the same task; calls are made
directly by the tasks that need them. A call whose session was lost before it was sent, or that may be repeated, is
made once more; otherwise the model is told that its effect is unknown.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from fnmatch import fnmatchcase
from typing import Any

import structlog

from worker.errors import ToolCallFailed, ToolError, ToolUnavailable
from worker.net_guard import Http, NetGuard
from worker.tools.ark_session import ArkSession
from worker.tools.backoff import Backoff
from worker.tools.config import McpServer
from worker.tools.interfaces import Tool, ToolResult
from worker.tools.mcp_auth import Credentials, load_credentials
from worker.tools.mcp_results import without_secrets
from worker.tools.mcp_session import McpSession, RemoteTool, SessionLost
from worker.tools.mcp_tools import tools_of
from worker.tools.redaction import mask_url, redact, secret_values
from worker.tools.sdk_session import SdkSession, first_cause, open_sdk_session
from worker.tools.shared_folders import NO_FOLDERS, SharedFolders
from worker.tools.stderr_tail import StderrTail

log = structlog.get_logger(__name__)

_CLOSE_TIMEOUT_S = 10.0
"""The SDK gives a server two seconds to end by itself, two after SIGTERM, and two after SIGKILL."""
_STDERR_CHARS = 400
LONG_AWAY_S = 30.0

OnLongAway = Callable[[str, str], Awaitable[None]]
"""Hears the name of a server that has been away for long, and why it is."""


class McpConnection:
    """A `ToolServer`: the tools of one MCP server."""

    def __init__(
        self,
        server: McpServer,
        http: Http,
        *,
        guard: NetGuard | None = None,
        environ: Mapping[str, str] = os.environ,
        connect_timeout_s: float = 60.0,
        reconnect_wait_s: float = 20.0,
        backoff: Backoff | None = None,
        on_long_away: OnLongAway | None = None,
        long_away_s: float = LONG_AWAY_S,
        folders: SharedFolders = NO_FOLDERS,
    ) -> None:
        """`guard` looks at each connection of an SDK session; `http` has to bring its own. `on_long_away` hears once of
        each time that the server is away for longer than `long_away_s`.

        `connect_timeout_s` is generous because some commands download their server first; `reconnect_wait_s` is how
        long a call waits for a server that is being reconnected."""
        self._server = server
        self._http = http
        self._guard = guard
        self._environ = environ
        self._connect_timeout_s = connect_timeout_s
        self._reconnect_wait_s = reconnect_wait_s
        self._backoff = backoff or Backoff()
        self._session: McpSession | None = None
        self._connected = asyncio.Event()
        self._attempted = asyncio.Event()
        self._tools: tuple[Tool, ...] = ()
        self._listed: list[RemoteTool] = []
        self._problem = "not connected yet"
        self._on_long_away = on_long_away
        self._long_away_s = long_away_s
        self._away_since: float | None = None
        self._is_long_away_told = False
        self._folders = folders
        self._secrets: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The server's name."""
        return self._server.name

    def tools(self) -> Sequence[Tool]:
        """The tools of the last session; they stay known while the server is away."""
        return self._tools

    def problem(self) -> str:
        """Why the server cannot be used right now; empty when it can."""
        return self._problem

    async def first_attempt(self) -> None:
        """Return as soon as the first attempt to connect has ended."""
        await self._attempted.wait()

    async def serve(self) -> None:
        """Keep a session open until cancelled. A started server process has then ended."""
        keeper = asyncio.create_task(self._keep_session(), name=f"mcp {self.name}")
        try:
            await asyncio.shield(keeper)
        finally:
            await _cancel_once(keeper)

    async def call(
        self, tool: str, arguments: dict[str, Any], repeatable: bool, meta: dict[str, Any] | None = None
    ) -> ToolResult:
        """Call a tool by the server's own name. `meta` is what the protocol calls `_meta`. Raises `ToolCallFailed`."""
        session = await self._ready_session()
        try:
            return await self._answer(session, tool, arguments, meta)
        except SessionLost as lost:
            self._give_up(session, str(lost))
            if lost.sent and not repeatable:
                raise self._unknown_effect() from lost
        session = await self._ready_session()
        try:
            return await self._answer(session, tool, arguments, meta)
        except SessionLost as lost:
            self._give_up(session, str(lost))
            if lost.sent:
                raise self._unknown_effect() from lost
            raise ToolUnavailable(f'MCP server "{self.name}" cannot be used: {lost}') from lost

    async def _answer(
        self, session: McpSession, tool: str, arguments: dict[str, Any], meta: dict[str, Any] | None
    ) -> ToolResult:
        try:
            return without_secrets(await session.call(tool, arguments, meta), self._secrets)
        except ToolCallFailed as error:
            raise ToolCallFailed(redact(f'MCP server "{self.name}": {error}', self._secrets)) from error

    def _unknown_effect(self) -> ToolCallFailed:
        return ToolCallFailed(
            f'MCP server "{self.name}": the connection was lost during the call; '
            "whether it took effect is not known: check before calling again"
        )

    async def _ready_session(self) -> McpSession:
        if self._session is None:
            self._backoff.wake()
        try:
            async with asyncio.timeout(self._reconnect_wait_s):
                while self._session is None:
                    await self._connected.wait()
        except TimeoutError:
            raise ToolUnavailable(f'MCP server "{self.name}" cannot be reached: {self._problem}') from None
        return self._session

    def _give_up(self, session: McpSession, reason: str) -> None:
        session.lost.set()
        if self._session is session:
            self._disconnected(reason)

    async def _keep_session(self) -> None:
        while True:
            reason = await self._one_session()
            self._disconnected(reason)
            self._attempted.set()
            self._say_down(reason)
            await self._tell_long_away(reason)
            await self._backoff.wait()

    async def _one_session(self) -> str:
        """Connect, and stay until the session is lost; returns why it ended."""
        stderr = StderrTail()
        limit = asyncio.timeout(self._connect_timeout_s)
        try:
            async with stderr, limit:
                credentials = await load_credentials(self._server, self._environ)
                self._secrets = self._known_secrets(credentials)
                async with self._opened(credentials, stderr) as session:
                    await self._refresh(session)
                    limit.reschedule(None)
                    self._backoff.reset()
                    self._up(session)
                    try:
                        await self._stay(session)
                    finally:  # before the session is taken down, so that no call starts on it
                        self._disconnected(self._problem or "the connection was lost")
            reason = self._problem or "the connection was lost"
        except TimeoutError as error:
            reason = f"no answer within {self._connect_timeout_s:g} s" if limit.expired() else self._reason(error)
        except Exception as error:  # noqa: BLE001  SDK, transports and servers fail in any way; all of it means: try again
            reason = self._reason(error)
        return redact(f"{reason}{self._said(stderr)}", self._secrets)

    @asynccontextmanager
    async def _opened(self, credentials: Credentials, stderr: StderrTail) -> AsyncIterator[McpSession]:
        if self._server.kind == "ark":
            yield ArkSession(self._server, credentials, self._http)
            return
        async with AsyncExitStack() as stack:
            session: McpSession
            try:
                session = await stack.enter_async_context(
                    open_sdk_session(self._server, credentials, stderr, self._guard, self._folders)
                )
            except Exception as error:
                ark = await self._ark_instead(credentials)
                if ark is None:
                    raise
                log.info("tool server speaks ark's plain HTTP", server=self.name, instead_of=self._reason(error))
                session = ark
            yield session

    async def _ark_instead(self, credentials: Credentials) -> McpSession | None:
        if self._server.kind != "http":
            return None
        session = ArkSession(self._server, credentials, self._http)
        try:
            await session.list_tools()
        except ToolError:
            return None
        return session

    async def _stay(self, session: McpSession) -> None:
        watches: list[Awaitable[Any]] = [session.lost.wait(), self._refresh_on_change(session)]
        if isinstance(session, SdkSession):
            watches.append(_then_for_ever(session.watch_tools))
        tasks = [asyncio.ensure_future(watch) for watch in watches]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _refresh_on_change(self, session: McpSession) -> None:
        while True:
            await session.tools_changed.wait()
            session.tools_changed.clear()
            async with asyncio.timeout(self._connect_timeout_s):
                await self._refresh(session)

    async def _refresh(self, session: McpSession) -> None:
        listed = [tool for tool in await session.list_tools() if self._is_offered(tool.name)]
        if listed != self._listed:
            self._listed = listed
            self._tools = tools_of(self._server, listed, self.call)

    def _is_offered(self, tool: str) -> bool:
        allow, deny = self._server.allow, self._server.deny
        if any(fnmatchcase(tool, pattern) for pattern in deny):
            return False
        return not allow or any(fnmatchcase(tool, pattern) for pattern in allow)

    def _up(self, session: McpSession) -> None:
        self._session = session
        self._problem = ""
        self._connected.set()
        self._attempted.set()
        self._away_since = None
        self._is_long_away_told = False
        log.info("tool server connected", server=self.name, tools=len(self._tools), protocol=session.protocol)

    def _disconnected(self, reason: str) -> None:
        self._session = None
        self._connected.clear()
        self._problem = reason

    def _say_down(self, reason: str) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            log.warning("tool server unavailable, retrying in the background", server=self.name, reason=reason)

    async def _tell_long_away(self, reason: str) -> None:
        """A restart of the server is nobody's business, and neither is each further attempt."""
        since, hook = self._away_since, self._on_long_away
        if hook is None or since is None or self._is_long_away_told or time.monotonic() - since < self._long_away_s:
            return
        try:
            await hook(self.name, reason)
        except Exception:  # it is anybody's code, and asked again after the next attempt
            log.warning("nobody could be told of a tool server's absence", server=self.name, exc_info=True)
        else:
            self._is_long_away_told = True

    def _known_secrets(self, credentials: Credentials) -> tuple[str, ...]:
        return credentials.secrets + secret_values(self._server.env)

    def _reason(self, error: BaseException) -> str:
        error = first_cause(error)
        text = str(error) or type(error).__name__
        if self._server.url and type(error).__module__.startswith("httpx2"):
            text = f"cannot reach {mask_url(self._server.url)}: {text}"
        if self._server.url:
            text = text.replace(self._server.url, mask_url(self._server.url))
        if isinstance(error, FileNotFoundError) and self._server.command:
            text = f"command {self._server.command!r} was not found: install it, or give its full path"
        return redact(text, self._secrets)

    def _said(self, stderr: StderrTail) -> str:
        text = stderr.text()
        return f"; it wrote: …{text[-_STDERR_CHARS:]}" if text else ""


async def _then_for_ever(watch: Callable[[], Awaitable[None]]) -> None:
    await watch()
    await asyncio.Event().wait()


async def _cancel_once(task: asyncio.Task[None]) -> None:
    """Cancel and wait, whatever happens to the waiter: a second cancel would cut short how a server is ended."""
    task.cancel()
    deadline = asyncio.get_running_loop().time() + _CLOSE_TIMEOUT_S
    interrupted = False
    while not task.done() and (left_s := deadline - asyncio.get_running_loop().time()) > 0:
        try:
            await asyncio.wait({task}, timeout=left_s)
        except asyncio.CancelledError:
            interrupted = True
    if interrupted:
        raise asyncio.CancelledError
