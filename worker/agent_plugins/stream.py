"""The answer of a message, as the plugin writes it."""

from __future__ import annotations

import asyncio
from typing import Any

from queue_backends import ChunkType
from worker.agent_plugins.errors import PluginMisuse
from worker.agent_plugins.message import Message


class MessageStream:
    """The `AgentStream` of one message. Whatever comes after its end is ignored."""

    def __init__(self, message: Message) -> None:
        self._message = message
        self._calls = 0
        self.ended = asyncio.Event()
        """`done` or `error` was called."""
        self.text: str | None = None
        """The output, if it is not all content."""
        self.structured: Any = None
        self.failure: str | None = None
        """Why the message cannot be answered."""

    async def content(self, text: str) -> None:
        """A piece of the answer's text."""
        await self._say(ChunkType.CONTENT, _checked("content", text))

    async def thinking(self, text: str) -> None:
        """A piece of visible reasoning."""
        await self._say(ChunkType.THINKING, _checked("thinking", text))

    async def tool_call(self, name: str, arguments: Any = None, *, call_id: str = "") -> str:
        """A tool is about to be called."""
        self._calls += 1
        call_id = call_id or f"own-{self._calls}"
        named = {"id": call_id, "name": name, "arguments": {} if arguments is None else arguments}
        await self._say(ChunkType.TOOL_CALL, _checked("name", name), named)
        return call_id

    async def tool_result(self, call_id: str, name: str, content: str, *, is_error: bool = False) -> None:
        """A tool has answered."""
        said = {"id": call_id, "name": name, "is_error": is_error}
        await self._say(ChunkType.TOOL_RESULT, _checked("content", content), said)

    async def error(self, message: str) -> None:
        """The message cannot be answered."""
        if not self.ended.is_set():
            self.failure = _checked("message", message) or "the agent gave no reason"
            self._end()

    async def done(self, text: str | None = None, *, structured: Any = None) -> None:
        """The answer is complete."""
        if not self.ended.is_set():
            self.text = text if text is None else _checked("text", text)
            self.structured = structured
            self._end()

    def _end(self) -> None:
        self._message.sections.mute()
        self.ended.set()

    async def _say(self, kind: ChunkType, content: str, metadata: dict[str, Any] | None = None) -> None:
        if not self.ended.is_set() and (content or metadata):
            await self._message.service(self._message.sections.say(kind, content, metadata))


def _checked(what: str, text: Any) -> str:
    if not isinstance(text, str):
        raise PluginMisuse(f"{what} is {type(text).__name__}: give text")
    return text
