"""A provider whose every step a test decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from providers import (
    ChatProvider,
    Message,
    StopReason,
    TextDelta,
    TurnEnd,
    TurnEvent,
    TurnRequest,
    UsageUpdate,
)
from queue_backends import TokenUsage

USAGE = TokenUsage(input_tokens=4, output_tokens=2)


class Cue:
    """What one model of the stage does: it waits for its cue before it speaks, and again before it ends."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.speak = asyncio.Event()
        self.end = asyncio.Event()
        self.gone = asyncio.Event()
        self.told: TokenUsage | None = None
        """What it tells of its usage before it waits for anything, as vendors do with the size of the prompt."""
        self.error: Exception | None = None
        self.calls = 0


class Stage(ChatProvider):
    """Models whose every step the test decides."""

    name = "stage"
    cues: dict[str, Cue]

    def __init__(self) -> None:
        self.cues = CUES

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        cue = self.cues[request.config.model]
        cue.calls += 1
        cue.asked.set()
        try:
            if cue.told is not None:
                yield UsageUpdate(cue.told)
            await cue.speak.wait()
            if cue.error is not None:
                raise cue.error
            text = f"{request.config.model} speaks"
            yield TextDelta(text)
            await cue.end.wait()
            yield UsageUpdate(USAGE)
            yield TurnEnd(message=Message.assistant(text), stop_reason=StopReason.END_TURN, usage=USAGE, model="")
        finally:
            cue.gone.set()


CUES: dict[str, Cue] = {}
