"""Providers for measurements, registered in the worker's process as anybody's own provider would be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import providers
from providers import ChatProvider, Message, StopReason, TextDelta, TurnEnd, TurnEvent, TurnRequest
from queue_backends import TokenUsage
from tests.benchmarks.peers.protocol import RESULT, report_start
from worker import tool

PIECE = "Sixty characters of text, as a model says them, give or take"
READ_AT_ONCE = 64
"""A burst yields to the event loop after so many pieces, as a socket read that brought them would."""
TICK_S = 0.02
USAGE = TokenUsage(input_tokens=256, output_tokens=256)


@tool
async def note(n: int) -> str:
    """Write a number down. Not declared idempotent, so that its start is stored before it begins."""
    return str(n)


def _prompt(request: TurnRequest) -> str:
    return request.messages[-1].text.strip()


def _end(text: str) -> TurnEnd:
    return TurnEnd(message=Message.assistant(text), stop_reason=StopReason.END_TURN, usage=USAGE, model="bench")


class Stamp(ChatProvider):
    """Says how long ago its prompt was written, and answers at once."""

    name = "bench-stamp"

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        report_start(_prompt(request))
        yield TextDelta(RESULT)
        yield _end(RESULT)


class Burst(ChatProvider):
    """As many pieces as the prompt says, as fast as they are taken."""

    name = "bench-burst"
    begun = False

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        if not self.begun:
            self.begun = True
            print(f"BEGIN {time.monotonic()}", flush=True)
        count = int(_prompt(request))
        for number in range(count):
            if number % READ_AT_ONCE == 0:
                await asyncio.sleep(0)
            yield TextDelta(PIECE)
        yield _end(PIECE * count)


class Ticks(ChatProvider):
    """As many pieces as the prompt says, one every 20 ms; each is the moment of its birth."""

    name = "bench-ticks"

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        texts = []
        for _ in range(int(_prompt(request))):
            await asyncio.sleep(TICK_S)
            texts.append(f"{time.monotonic():017.6f}|")
            yield TextDelta(texts[-1])
        yield _end("".join(texts))


def register() -> None:
    """Make them known to this process."""
    for factory in (Stamp, Burst, Ticks):
        providers.register(factory.name, factory)
