"""Providers for measurements, registered in the worker's process as anybody's own provider would be."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import providers
from providers import ChatProvider, Message, StopReason, TextDelta, TurnEnd, TurnEvent, TurnRequest
from queue_backends import TokenUsage
from tests.benchmarks.peers.protocol import RESULT, report_began, report_start
from worker import tool

PIECE = "Sixty characters of text, as a model says them, give or take"
READ_AT_ONCE = 64
"""A burst yields to the event loop after so many pieces, as a socket read that brought them would."""
TICK_S = 0.02
GOLDEN = 0.6180339887498949
"""Multiples of it, modulo 1, are spread evenly however many there are."""
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


class Nap(ChatProvider):
    """Answers after as many seconds as its prompt says."""

    name = "bench-nap"

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        report_began()
        await asyncio.sleep(float(_prompt(request)))
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
    """As many pieces as the prompt says, one every 20 ms; each is the moment of its birth. Runs begin at different
    moments of a period, as real ones do."""

    name = "bench-ticks"
    begun = 0

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        texts = []
        self.begun += 1
        await asyncio.sleep(self.begun * GOLDEN % 1 * TICK_S)
        for _ in range(int(_prompt(request))):
            await asyncio.sleep(TICK_S)
            texts.append(f"{time.monotonic():017.6f}|")
            yield TextDelta(texts[-1])
        yield _end("".join(texts))


class Steady(ChatProvider):
    """As its prompt says, `{"pieces", "every_s", "chars"}`: pieces of so many characters at a steady rate.

    A piece begins with the moment of its birth. Runs begin at different moments of a period, as real ones do. With
    `"spread"`, runs have from half to one and a half times as many pieces.
    """

    name = "bench-steady"
    begun = 0

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        told = json.loads(_prompt(request))
        loop, texts = asyncio.get_running_loop(), list[str]()
        self.begun += 1
        phase = self.begun * GOLDEN % 1
        due = loop.time() + told["every_s"] * phase
        pieces = round(told["pieces"] * (0.5 + phase)) if told.get("spread") else told["pieces"]
        for _ in range(pieces):
            due += told["every_s"]
            await asyncio.sleep(max(0.0, due - loop.time()))
            texts.append(f"{time.monotonic():017.6f}|".ljust(told["chars"], "."))
            yield TextDelta(texts[-1])
        yield _end("".join(texts))


class Doze(ChatProvider):
    """Answers after `{"pause_s"}`, from half to one and a half of it, so that runs end at all times."""

    name = "bench-doze"
    begun = 0

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        self.begun += 1
        await asyncio.sleep(json.loads(_prompt(request))["pause_s"] * (0.5 + self.begun * GOLDEN % 1))
        yield TextDelta(RESULT)
        yield _end(RESULT)


def register() -> None:
    """Make them known to this process."""
    for factory in (Stamp, Nap, Burst, Ticks, Steady, Doze):
        providers.register(factory.name, factory)
