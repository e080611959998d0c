"""A conversation's side of a run whose turns nobody knows: put together from the chunks that its consumers saw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from providers import Message, Role, TextPart, ThinkingPart, ToolCall, ToolOutcome
from providers.messages import Part
from queue_backends import ChunkType
from queue_backends.messages import encode_json

NOBODY = "agent-plugin"
"""Stands for the provider of reasoning that no vendor takes back."""


class Told:
    """What an agent plugin has told, as messages."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._parts: list[Part] = []
        self._open: list[ToolCall] = []
        """Calls without an outcome."""
        self._calls = 0

    def hear(self, kind: ChunkType, content: str, metadata: Mapping[str, Any]) -> None:
        """A chunk."""
        if kind is ChunkType.CONTENT:
            self._speak(TextPart, content)
        elif kind is ChunkType.THINKING:
            self._speak(ThinkingPart, content)
        elif kind is ChunkType.TOOL_CALL:
            self._calls += 1
            call = ToolCall(
                id=str(metadata.get("id") or f"plugin_{self._calls}"),
                name=str(metadata.get("name") or content),
                arguments=encode_json(metadata.get("arguments", {})).decode(),
            )
            self._open.append(call)
            self._parts.append(call)
        elif kind is ChunkType.TOOL_RESULT:
            self._answered(content, metadata)

    def _speak(self, kind: type[TextPart] | type[ThinkingPart], text: str) -> None:
        last = self._parts[-1] if self._parts else None
        if isinstance(last, TextPart) and kind is TextPart:
            self._parts[-1] = TextPart(text=last.text + text)
        elif isinstance(last, ThinkingPart) and kind is ThinkingPart:
            self._parts[-1] = ThinkingPart(text=last.text + text, provider=NOBODY)
        else:
            self._parts.append(TextPart(text=text) if kind is TextPart else ThinkingPart(text=text, provider=NOBODY))

    def _answered(self, content: str, metadata: Mapping[str, Any]) -> None:
        named = str(metadata.get("id") or "")
        call = next((each for each in self._open if each.id == named or not named), None)
        if call is None:
            return
        self._open.remove(call)
        outcome = ToolOutcome(
            call_id=call.id, name=call.name, content=content, is_error=bool(metadata.get("is_error", False))
        )
        if self._parts:
            self._messages.append(Message(role=Role.ASSISTANT, parts=tuple(self._parts)))
            self._parts = []
        self._messages.append(Message(role=Role.USER, parts=(outcome,)))

    def messages(self, output: str) -> list[Message]:
        """All of it. An answer that was not told here to its end, because an earlier delivery has told the beginning,
        is the answer alone."""
        found = list(self._messages)
        if self._parts:
            found.append(Message(role=Role.ASSISTANT, parts=tuple(self._parts)))
        said = "".join(message.text for message in found if message.role is Role.ASSISTANT)
        return found if output in said else [Message.assistant(output)]
