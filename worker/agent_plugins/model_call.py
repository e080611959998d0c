"""One model call of a plugin: await it, or iterate over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

from worker.agent_plugins.call_output import Tell
from worker.agent_plugins.services import LlmAnswer, LlmEvent

MOST_UNREAD = 256
"""Events that the plugin has not taken; then the reading of the model's answer waits."""

Run = Callable[[Tell | None], Awaitable[LlmAnswer]]


class HostedCall:
    """Nothing is sent before it is awaited or iterated over; and it is sent once, however often that happens."""

    def __init__(self, run: Run, start: Callable[[Any, str], asyncio.Task[Any]], name: str) -> None:
        """`start` runs a coroutine in the background, until the message ends at the latest."""
        self._run = run
        self._start = start
        self._name = name
        self._answering: asyncio.Task[LlmAnswer] | None = None

    def __await__(self) -> Generator[Any, None, LlmAnswer]:
        return self.answer().__await__()

    async def answer(self) -> LlmAnswer:
        """The answer; the same as awaiting the call, for where a coroutine is wanted."""
        if self._answering is None:
            self._answering = self._begin(None)
        try:
            return await asyncio.shield(self._answering)
        except asyncio.CancelledError:
            await self._end()
            raise

    def __aiter__(self) -> AsyncIterator[LlmEvent]:
        return self._events()

    async def _events(self) -> AsyncIterator[LlmEvent]:
        if self._answering is not None:
            raise RuntimeError("the model call has begun already: iterate over it before it is awaited, and once")
        unread: asyncio.Queue[LlmEvent | None] = asyncio.Queue(MOST_UNREAD)
        answering = self._answering = self._begin(unread.put)
        ended = asyncio.ensure_future(asyncio.wait([answering]))
        try:
            while True:
                event = await _next(unread, ended)
                if event is None:
                    break
                yield event
            await asyncio.shield(answering)
        finally:
            ended.cancel()
            if not answering.done():  # whoever reads has turned away
                await self._end()

    def _begin(self, tell: Tell | None) -> asyncio.Task[LlmAnswer]:
        async def answer() -> LlmAnswer:
            return await self._run(tell)

        return self._start(answer(), self._name)

    async def _end(self) -> None:
        """Close the model's stream, and wait until its record is written."""
        answering = self._answering
        if answering is not None and not answering.done():
            answering.cancel()
            await asyncio.wait([answering])


async def _next(unread: asyncio.Queue[LlmEvent | None], ended: asyncio.Future[Any]) -> LlmEvent | None:
    """The next event; None when there will be none any more."""
    if not unread.empty():
        return unread.get_nowait()
    if ended.done():
        return None
    getting = asyncio.ensure_future(unread.get())
    try:
        await asyncio.wait([getting, ended], return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not getting.done():
            getting.cancel()
    if getting.done() and not getting.cancelled():
        return getting.result()
    return unread.get_nowait() if not unread.empty() else None
