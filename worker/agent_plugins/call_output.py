"""Where the chunks of a plugin's model call go: to the plugin as events, and to the consumer if it wants that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from providers.messages import TextDelta, ThinkingDelta, ToolCall, ToolOutcome
from queue_backends import ChunkType
from worker.agent_plugins.sections import Section, Sections
from worker.agent_plugins.services import LlmEvent, ToolCallSeen, ToolResultSeen, TurnRestarted
from worker.agent_plugins.steps import Step

Tell = Callable[[LlmEvent], Awaitable[None]]
"""Takes an event for the plugin; waits while it has too many unread ones."""


class CallOutput:
    """The chunk function of one model call."""

    def __init__(self, step: Step, sections: Sections | None, tell: Tell | None) -> None:
        """`sections`: the consumer's stream, if the call goes there."""
        self._step = step
        self._sections = sections
        self._tell = tell
        self._slot = sections.output_slot() if sections is not None else []
        self._section: Section | None = None
        self._turn = -1
        self._attempt = 0
        self._has_told = False

    def turn_begins(self, turn: int, attempt: int) -> None:
        """What follows belongs to this turn; if it was another attempt before, that is void."""
        if turn != self._turn:
            self._close()
            self._turn, self._attempt, self._has_told = turn, attempt, False
            if self._sections is not None:
                self._section = self._sections.begin(f"t{self._step.number}.{turn}", attempt)
        elif attempt != self._attempt:
            self._attempt = attempt
            if self._section is not None and self._sections is not None:
                self._sections.restart(self._section, attempt)

    def is_again(self, turn: int, attempt: int) -> bool:
        """Whether this would be another attempt of the turn that is going on."""
        return turn == self._turn and attempt != self._attempt

    async def turn_ended(self) -> None:
        """The turn's answer is complete."""
        if self._sections is not None:
            self._close()
            await self._sections.advance()

    async def ended(self, text: str) -> None:
        """The call has its answer."""
        self._slot[:] = [text]
        await self.turn_ended()

    def broke_off(self) -> None:
        """The call has none."""
        if self._section is not None and self._sections is not None:
            self._sections.abandon(self._section)
            self._section = None

    async def __call__(self, kind: ChunkType, content: str, metadata: Mapping[str, Any] | None = None, /) -> None:
        """A chunk of the tool loop."""
        if kind is ChunkType.TOOL_CALL or kind is ChunkType.TOOL_RESULT:
            await self._tool(kind, content, metadata or {})
            return
        if self._section is not None and self._sections is not None:
            await self._sections.add(self._section, kind, content, metadata)
        if content and self._tell is not None:
            self._has_told = True
            await self._tell(TextDelta(content) if kind is ChunkType.CONTENT else ThinkingDelta(content))

    async def restarted(self) -> None:
        """Tell the plugin that what it has heard of the turn is void."""
        if self._has_told and self._tell is not None:
            self._has_told = False
            await self._tell(TurnRestarted())

    async def _tool(self, kind: ChunkType, content: str, metadata: Mapping[str, Any]) -> None:
        if metadata.get("is_client"):
            return  # the plugin calls it, and says so if it likes
        call_id = str(metadata.get("id", ""))
        if self._sections is not None:
            unique = f"{self._step.number}.{call_id}"
            label = f"{'c' if kind is ChunkType.TOOL_CALL else 'r'}{self._step.number}.{self._turn}.{call_id}"
            await self._sections.say_alone(label, kind, content, {**metadata, "id": unique})
        if self._tell is None:
            return
        if kind is ChunkType.TOOL_CALL:
            arguments = msgspec.json.encode(metadata.get("arguments", {})).decode()
            await self._tell(ToolCallSeen(ToolCall(id=call_id, name=content, arguments=arguments)))
        else:
            name, is_error = str(metadata.get("name", "")), bool(metadata.get("is_error"))
            outcome = ToolOutcome(call_id=call_id, name=name, content=content, is_error=is_error)
            await self._tell(ToolResultSeen(outcome))

    def _close(self) -> None:
        if self._section is not None:
            self._section.is_closed = True
            self._section = None
