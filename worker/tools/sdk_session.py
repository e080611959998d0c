"""A session with an MCP server through the official SDK: stdio, streamable HTTP or SSE, old and new protocol revision.

The SDK is imported on first use: it takes about a second, and most workers have no MCP server.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from worker.errors import ToolCallFailed, ToolSetupFailed
from worker.net_guard import NetGuard
from worker.tools.config import McpServer
from worker.tools.interfaces import ToolResult
from worker.tools.mcp_auth import Credentials
from worker.tools.mcp_results import result_of
from worker.tools.mcp_session import RemoteTool, SessionLost
from worker.tools.sdk_transport import TransportNews, open_transport
from worker.tools.shared_folders import NO_FOLDERS, SharedFolders, reaches_folders
from worker.tools.stderr_tail import StderrTail

if TYPE_CHECKING:
    import mcp_types
    from mcp import Client

_MAX_PAGES = 100
_CONNECTION_CLOSED = -32000
_INVALID_REQUEST = -32600
_WITHOUT_SESSIONS = "2026-07-28"
"""From this protocol revision on, HTTP requests belong to no session."""


class SdkSession:
    """An open session of the official SDK. Calls come from any task; one task opened it and closes it."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.tools_changed = asyncio.Event()
        self.last_http_error: int | None = None
        """The status of the last HTTP answer that was an error: the SDK's own errors leave it out."""
        self._client: Client | None = None

    def note_http_error(self, status: int) -> None:
        """An HTTP answer had this error status."""
        self.last_http_error = status

    def start(self, client: Client) -> None:
        """Use this client, whose connection is open."""
        self._client = client

    @property
    def client(self) -> Client:
        """The SDK's client. Raises `SessionLost` before the session is open."""
        if self._client is None:
            raise SessionLost("the session is not open", sent=False)
        return self._client

    @property
    def protocol(self) -> str:
        """The protocol revision that was agreed on, such as `2026-07-28`."""
        return self.client.protocol_version

    async def list_tools(self) -> list[RemoteTool]:
        """All tools, over all pages. Raises `SessionLost` or `ToolSetupFailed`."""
        if self.client.server_capabilities.tools is None:
            return []
        tools: list[RemoteTool] = []
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            page = await self._guarded(self.client.list_tools(cursor=cursor), ToolSetupFailed)
            tools.extend(_remote(tool) for tool in page.tools)
            cursor = page.next_cursor
            if cursor is None:
                return tools
        raise ToolSetupFailed(f"tools/list goes on after {_MAX_PAGES} pages")

    async def call(self, name: str, arguments: dict[str, Any], meta: dict[str, Any] | None = None) -> ToolResult:
        """Call a tool. Raises `SessionLost` or `ToolCallFailed`; a cancel is sent on to the server."""
        sent = cast("mcp_types.RequestParamsMeta | None", meta)  # any other keys may be in it
        return result_of(await self._guarded(self.client.call_tool(name, arguments, meta=sent), ToolCallFailed))

    async def watch_tools(self) -> None:
        """On the 2026-07-28 revision, subscribe to changes of the tool list; ends when there is nothing to hear."""
        from mcp import MCPError
        from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost

        tools = self.client.server_capabilities.tools
        if tools is None or not tools.list_changed:
            return
        try:
            async with self.client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self.tools_changed.set()
        except (ListenNotSupportedError, SubscriptionLost, MCPError, TimeoutError):
            return  # older servers notify on the session itself, and a lost session is noticed elsewhere

    async def _guarded(self, request: Any, failure: type[ToolSetupFailed | ToolCallFailed]) -> Any:
        import anyio
        from mcp import MCPError

        try:
            return await request
        except MCPError as error:
            raise self._translated(error, failure) from error
        except (anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            raise SessionLost("connection closed", sent=False) from error
        except (RuntimeError, ValueError) as error:  # the answer breaks the tool's own output schema, or the protocol
            raise failure(str(error)) from error

    def _translated(self, error: Any, failure: type[ToolSetupFailed | ToolCallFailed]) -> Exception:
        text = str(error.message)
        about_session = "session" in text.lower()
        if error.code == _INVALID_REQUEST and text == "Session terminated":
            return SessionLost("the server has forgotten the session", sent=False)
        if error.code == _CONNECTION_CLOSED:
            return SessionLost(text, sent=not about_session)
        if text == "Server returned an error response" and self.last_http_error is not None:
            if self.last_http_error == 400 and self.protocol < _WITHOUT_SESSIONS:
                # What several servers say to a session id from before their restart. Nothing was run.
                return SessionLost("the server rejects the session (HTTP status 400)", sent=False)
            text = describe_status(self.last_http_error)
        return failure(text)


def describe_status(status: int) -> str:
    """What an HTTP error status means for the set-up."""
    hint = {401: ": its credentials are missing or wrong", 403: ": its credentials do not allow this"}.get(status, "")
    return f"the server answered with HTTP status {status}{hint}"


def first_cause(error: BaseException) -> BaseException:
    """The error itself, or the first one of a group: the SDK's task groups wrap whatever happens in them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def open_sdk_session(
    server: McpServer,
    credentials: Credentials,
    stderr: StderrTail,
    guard: NetGuard | None = None,
    folders: SharedFolders = NO_FOLDERS,
) -> AsyncIterator[SdkSession]:
    """Connect and agree on a protocol revision. Entered and left by the same task, as the SDK's scopes must be.

    Raises whatever the SDK and its transports raise, or `ToolSetupFailed` if the SDK is not installed.
    """
    await asyncio.to_thread(_import_sdk)
    import mcp_types
    from mcp import Client, MCPError

    session = SdkSession()

    async def on_message(message: Any) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            session.tools_changed.set()

    async def roots(context: Any) -> mcp_types.ListRootsResult:
        found = [{"uri": root.as_uri()} for root in folders.roots]
        return mcp_types.ListRootsResult.model_validate({"roots": found})

    news = TransportNews(session.lost.set, session.note_http_error)
    async with AsyncExitStack() as stack:
        client = Client(
            await open_transport(server, credentials, stderr, news, guard, folders),
            cache=None,
            client_info=mcp_types.Implementation(name="shoal", version=_version()),
            message_handler=on_message,
            list_roots_callback=roots if folders.roots and reaches_folders(server) else None,
        )
        try:
            await stack.enter_async_context(client)
        except Exception as error:
            if session.last_http_error is not None and isinstance(first_cause(error), MCPError):
                raise ToolSetupFailed(describe_status(session.last_http_error)) from error
            raise
        session.start(client)
        yield session


def _version() -> str:
    try:
        return importlib.metadata.version("shoal")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "0"


def _import_sdk() -> None:
    try:
        for module in ("mcp", "mcp.client.sse", "mcp.client.stdio", "mcp.client.streamable_http", "httpx2"):
            importlib.import_module(module)
    except ImportError as error:
        raise ToolSetupFailed(f"MCP servers need the package 'mcp': install shoal[mcp] ({error})") from error
    logger = logging.getLogger("mcp")
    if logger.level == logging.NOTSET:
        # What goes wrong is said once by us; the SDK's tracebacks would come again at each attempt.
        logger.setLevel(logging.CRITICAL)


def _remote(tool: mcp_types.Tool) -> RemoteTool:
    hints = tool.annotations
    return RemoteTool(
        name=tool.name,
        description=tool.description or tool.title or "",
        input_schema=tool.input_schema,
        idempotent=bool(hints and (hints.idempotent_hint or hints.read_only_hint)),
    )
