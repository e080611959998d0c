"""ark's own dialect of MCP: plain HTTP instead of JSON-RPC.

`POST <url>/tools/list` with an empty body answers `{"tools": [...]}`; `POST <url>/tools/call` with `name` and
`arguments` answers `{"content": [...]}`. There is no session, so there is nothing to keep open.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from msgspec import Struct, field

from providers import ProviderError
from providers.calls import Response
from providers.messages import ImagePart
from queue_backends.messages import JsonObject, encode_json
from worker.errors import ToolCallFailed, ToolSetupFailed
from worker.net_guard import AddressRefused, Http
from worker.tools.config import McpServer
from worker.tools.interfaces import ToolResult
from worker.tools.mcp_auth import Credentials
from worker.tools.mcp_session import RemoteTool, SessionLost

_LIST_TIMEOUT_S = 30.0


class _Annotations(Struct, frozen=True, rename="camel"):
    idempotent_hint: bool | None = None
    read_only_hint: bool | None = None


class _Tool(Struct, frozen=True, rename="camel"):
    name: str
    description: str | None = None
    input_schema: JsonObject | None = None
    annotations: _Annotations = _Annotations()


class _ToolList(Struct, frozen=True):
    tools: list[_Tool]


class _Block(Struct, frozen=True, rename="camel"):
    type: str = ""
    text: str = ""
    data: str = ""
    mime_type: str = ""


class _Answer(Struct, frozen=True):
    content: list[_Block] = field(default_factory=list)
    is_error: bool = field(default=False, name="isError")


class ArkSession:
    """Tools behind ark's plain HTTP."""

    protocol = "ark"

    def __init__(self, server: McpServer, credentials: Credentials, http: Http) -> None:
        self.lost = asyncio.Event()
        self.tools_changed = asyncio.Event()
        self._server = server
        self._credentials = credentials
        self._http = http

    async def list_tools(self) -> list[RemoteTool]:
        """All tools. Raises `SessionLost` if the server cannot be reached, `ToolSetupFailed` if it answers wrongly."""
        response = await self._post("tools/list", b"", _LIST_TIMEOUT_S)
        if response.status != 200:
            raise ToolSetupFailed(f"tools/list returned status {response.status}")
        try:
            listed = msgspec.json.decode(response.body, type=_ToolList)
        except msgspec.DecodeError as error:
            raise ToolSetupFailed(f"decoding tools/list response: {error}") from error
        return [_remote(tool) for tool in listed.tools]

    async def call(self, name: str, arguments: dict[str, Any], meta: dict[str, Any] | None = None) -> ToolResult:
        """Call a tool; there is no place for `meta`. Raises `ToolCallFailed` with ark's texts."""
        body = encode_json({"arguments": arguments, "name": name})
        try:
            response = await self._post("tools/call", body, self._server.timeout_s)
        except SessionLost as error:
            self.lost.set()
            raise ToolCallFailed(f"tools/call request failed: {error}") from error
        if response.status >= 400:
            raise ToolCallFailed(f"tools/call request failed: status {response.status}: {_text(response)}")
        try:
            answer = msgspec.json.decode(response.body, type=_Answer)
        except msgspec.DecodeError as error:
            raise ToolCallFailed(f"decoding tools/call response: {error}") from error
        images = tuple(ImagePart(media_type=b.mime_type, data=b.data) for b in answer.content if b.type == "image")
        text = "\n".join(block.text for block in answer.content if block.type == "text")
        return ToolResult(text=text, images=images, is_error=answer.is_error)

    async def _post(self, path: str, body: bytes, timeout_s: float) -> Response:
        headers = {"Content-Type": "application/json", **self._credentials.headers}
        url = f"{self._server.url.rstrip('/')}/{path}"
        try:
            return await self._http.request(
                "POST", url, headers=headers, content=body, timeout_s=timeout_s, cert=self._credentials.cert
            )
        except AddressRefused as error:
            raise SessionLost(str(error), sent=False) from error
        except ProviderError as error:
            raise SessionLost(str(error), sent=True) from error


def _remote(tool: _Tool) -> RemoteTool:
    return RemoteTool(
        name=tool.name,
        description=tool.description or "",
        input_schema=tool.input_schema or {"type": "object"},
        idempotent=bool(tool.annotations.idempotent_hint or tool.annotations.read_only_hint),
    )


def _text(response: Response) -> str:
    return response.body[:2000].decode("utf-8", "replace").strip()
