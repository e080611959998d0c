"""The stream of an answer on bytes that a test hands out, and its limit on silence on a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from providers.answer_body import IteratedBody
from providers.errors import BadResponse, ProviderTimeout, StreamBroken
from providers.event_stream import EventStream
from providers.silence import SilenceLimit

pytestmark = pytest.mark.timeout(20)


class MovableClock:
    """The part of an event loop that the limit uses, with a time that only the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        """Seconds since the test began, as it says."""
        return self.now

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> MovableClock:
        """Note a timer."""
        self.timers.append((self.now + delay_s, callback))
        return self

    def cancel(self) -> None:
        """Forget the timers."""
        self.timers.clear()

    def move_to(self, now: float) -> None:
        """Let time pass, and run the timers that are due by then."""
        self.now = now
        due = [timer for timer in self.timers if timer[0] <= now]
        self.timers = [timer for timer in self.timers if timer[0] > now]
        for _, callback in due:
            callback()


def _limit(clock: Any) -> SilenceLimit:
    return SilenceLimit(10.0, clock)


async def _wait(limit: SilenceLimit, until: asyncio.Event) -> str:
    limit.begin()
    try:
        await until.wait()
    except asyncio.CancelledError:
        if limit.ended_it():
            return "silent"
        raise
    finally:
        limit.end()
    return "came"


async def _started(limit: SilenceLimit, until: asyncio.Event) -> asyncio.Task[str]:
    task = asyncio.create_task(_wait(limit, until))
    await asyncio.sleep(0)  # one turn of the loop: the task waits now
    return task


async def test_each_wait_has_the_whole_limit() -> None:
    """A timer from an earlier wait does not end a later one, and one timer serves many waits."""
    clock, data = MovableClock(), asyncio.Event()
    limit = _limit(clock)
    first = await _started(limit, data)
    clock.move_to(8.0)
    data.set()
    assert await first == "came"
    second = await _started(limit, asyncio.Event())
    clock.move_to(10.0)
    clock.move_to(17.9)
    await asyncio.sleep(0)
    assert not second.done()
    assert len(clock.timers) == 1
    clock.move_to(18.0)
    assert await second == "silent"
    assert second.cancelling() == 0


async def test_nobody_waits() -> None:
    """Time between two waits does not count, and the next wait sets the timer again."""
    clock, data = MovableClock(), asyncio.Event()
    limit = _limit(clock)
    data.set()
    assert await _wait(limit, data) == "came"
    clock.move_to(100.0)
    assert clock.timers == []
    late = await _started(limit, asyncio.Event())
    clock.move_to(110.0)
    assert await late == "silent"


async def test_cancelled_from_outside_at_the_same_moment() -> None:
    """If somebody else cancels too, that cancellation wins."""
    clock = MovableClock()
    task = await _started(_limit(clock), asyncio.Event())
    clock.move_to(10.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_closed_limit() -> None:
    """Closing leaves no timer behind."""
    clock = MovableClock()
    limit = _limit(clock)
    task = await _started(limit, asyncio.Event())
    limit.close()
    assert clock.timers == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _stream(chunks: AsyncIterator[bytes], idle_timeout_s: float = 5.0) -> EventStream:
    async def close() -> None:
        return

    return EventStream(
        IteratedBody(chunks),
        close,
        provider="acme",
        idle_timeout_s=idle_timeout_s,
        connection_errors=(ConnectionError,),
    )


async def _chunks(*chunks: bytes | Exception) -> AsyncIterator[bytes]:
    for chunk in chunks:
        if isinstance(chunk, Exception):
            raise chunk
        yield chunk


async def test_a_slow_reader_is_no_silence() -> None:
    """Only waiting for the server counts: the reader may take longer than the limit between two batches."""
    stream = _stream(_chunks(b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"), idle_timeout_s=0.05)
    assert await stream.peek() == b"1"
    seen = []
    async for batch in stream:
        seen += batch
        await asyncio.sleep(0.15)  # the reader's own time, three limits long
    assert seen == [b"1", b"2", b"3"]


async def test_silence() -> None:
    """A server that stops sending is given up."""
    never = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await never.wait()

    stream = _stream(stalling(), idle_timeout_s=0.05)
    assert await anext(stream) == [b"1"]
    with pytest.raises(ProviderTimeout, match="silent"):
        await anext(stream)


async def test_break_after_events() -> None:
    """Events before the break are given out first; the driver's error is the cause."""
    stream = _stream(_chunks(b"data: 1\n\n", ConnectionResetError("reset")))
    assert await stream.peek() == b"1"
    assert await anext(stream) == [b"1"]
    with pytest.raises(StreamBroken, match="ConnectionResetError") as caught:
        await anext(stream)
    assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_endless_event() -> None:
    """An event that never ends is no event stream."""
    with pytest.raises(BadResponse, match="bytes"):
        await anext(_stream(_chunks(*[b"data: " + b"x" * (1 << 20)] * 17)))


async def test_settling_reads_to_the_end() -> None:
    """A reader with the last event in hand lets the answer end, so that the connection can be used again."""
    ended = asyncio.Event()

    async def answer() -> AsyncIterator[bytes]:
        yield b"data: last\n\n"
        yield b"\n"
        ended.set()

    stream = _stream(answer())
    assert await anext(stream) == [b"last"]
    await stream.settle()
    assert ended.is_set()


async def test_settling_does_not_wait_for_ever() -> None:
    """A server that keeps the connection open after the last event, or breaks it, does no harm."""
    never = asyncio.Event()

    async def lingering() -> AsyncIterator[bytes]:
        yield b"data: last\n\n"
        await never.wait()

    for chunks in (lingering(), _chunks(b"data: last\n\n", ConnectionResetError())):
        stream = _stream(chunks)
        assert await anext(stream) == [b"last"]
        await stream.settle()
