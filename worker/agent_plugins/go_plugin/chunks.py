"""A plugin's chunks, on their way to the consumers."""

from __future__ import annotations

from worker.agent_plugins.go_plugin.messages import AgentChunkType, AgentMessageChunk
from worker.agent_plugins.go_plugin.translation import json_object
from worker.agent_plugins.services import AgentStream

NO_REASON = "the agent gave no reason"


class ChunkForwarder:
    """Says each chunk of one message on its stream."""

    def __init__(self, stream: AgentStream) -> None:
        self._stream = stream
        self._open_calls: dict[str, list[str]] = {}
        """Tool -> ids of calls that were shown and have no result yet: the protocol links them by nothing."""

    async def say(self, chunk: AgentMessageChunk) -> None:
        """Pass it on. A type that is not known counts as content, as in AI Studio."""
        metadata = json_object(chunk.metadata_json) or {}
        match chunk.type:
            case AgentChunkType.THINKING:
                await self._stream.thinking(chunk.content)
            case AgentChunkType.TOOL_CALL:
                name = str(metadata.get("tool_name") or metadata.get("name") or chunk.content or "tool")
                arguments = metadata.get("arguments", metadata.get("parameters", metadata))
                call_id = await self._stream.tool_call(name, arguments, call_id=str(metadata.get("id", "")))
                self._open_calls.setdefault(name, []).append(call_id)
            case AgentChunkType.TOOL_RESULT:
                name = str(metadata.get("tool_name") or metadata.get("name") or self._only_open() or "tool")
                waiting = self._open_calls.get(name) or [str(metadata.get("id", "")) or name]
                is_error = bool(metadata.get("is_error", False))
                await self._stream.tool_result(waiting.pop(0), name, chunk.content, is_error=is_error)
            case AgentChunkType.ERROR:
                await self._stream.error(chunk.content or NO_REASON)
            case AgentChunkType.DONE:
                await self._stream.done()
            case _:
                await self._stream.content(chunk.content)

    def _only_open(self) -> str:
        names = [name for name, ids in self._open_calls.items() if ids]
        return names[0] if len(names) == 1 else ""
