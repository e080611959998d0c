"""The limit on silence: what counts as silence, and what only looks like it."""

from __future__ import annotations

import asyncio
import time

import pytest

from providers.silence import LATE_S, SilenceLimit

LIMIT_S = 0.1


async def waited(limit: SilenceLimit, answer: asyncio.Future[str]) -> str:
    """What came, or `silence`."""
    limit.begin()
    try:
        return await answer
    except asyncio.CancelledError:
        if limit.ended_it():
            return "silence"
        raise
    finally:
        limit.end()
        limit.close()


async def test_nothing_for_too_long_is_silence() -> None:
    """The wait ends, and the task goes on."""
    async with asyncio.timeout(10):
        assert await waited(SilenceLimit(LIMIT_S), asyncio.get_running_loop().create_future()) == "silence"


async def test_what_came_while_the_loop_stood_still_is_heard() -> None:
    """Somebody blocks the loop for longer than the limit; the answer that came meanwhile counts, not the clock."""
    loop = asyncio.get_running_loop()
    answer = loop.create_future()
    waiting = asyncio.create_task(waited(SilenceLimit(LIMIT_S), answer))
    await asyncio.sleep(0)
    loop.call_later(LIMIT_S / 2, answer.set_result, "here I am")
    time.sleep(LIMIT_S + 2 * LATE_S)
    async with asyncio.timeout(10):
        assert await waiting == "here I am"


async def test_silence_after_a_standstill_is_silence() -> None:
    """The benefit of the doubt is given once."""
    waiting = asyncio.create_task(waited(SilenceLimit(LIMIT_S), asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    time.sleep(LIMIT_S + 2 * LATE_S)
    async with asyncio.timeout(10):
        assert await waiting == "silence"


async def test_somebody_elses_cancellation_goes_on() -> None:
    """Only its own is taken back."""
    waiting = asyncio.create_task(waited(SilenceLimit(60), asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_cancellation_in_the_same_moment_as_silence_goes_on(is_first: bool) -> None:
    """Both end the same wait, whichever comes first: whoever cancelled the task is not to be told of silence."""
    loop = asyncio.get_running_loop()
    if not is_first:  # timers that are due in the same turn of the loop are called in the order of their moments
        waiting = asyncio.create_task(waited(SilenceLimit(LIMIT_S), loop.create_future()))
        await asyncio.sleep(0)
    loop.call_later(LIMIT_S, lambda: waiting.cancel())
    if is_first:
        waiting = asyncio.create_task(waited(SilenceLimit(LIMIT_S), loop.create_future()))
        await asyncio.sleep(0)
    loop.call_later(0, time.sleep, 2 * LIMIT_S)  # less than would be a standstill
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert waiting.cancelling() == 1
