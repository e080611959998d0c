"""A second event loop in a thread: what it promises to those who run something there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from worker.health_thread import from_beside
from worker.side_loop import SideLoop

LIMIT_S = 10


@pytest.fixture
async def side() -> AsyncIterator[SideLoop]:
    async with SideLoop("beside") as opened:
        yield opened


async def test_work_is_done_in_another_thread_and_answered_here(side: SideLoop) -> None:
    """What it returns comes back, and so does what it raises."""

    async def where() -> int:
        return threading.get_ident()

    async def fail() -> None:
        raise ZeroDivisionError("there")

    assert await side.run(where()) not in {0, threading.get_ident()}
    with pytest.raises(ZeroDivisionError, match="there"):
        await side.run(fail())


async def test_cancelling_waits_until_the_work_has_cleaned_up(side: SideLoop) -> None:
    """It is cancelled there, and has ended when the caller goes on."""
    begun, home, seen = asyncio.Event(), asyncio.get_running_loop(), []

    async def work() -> None:
        try:
            home.call_soon_threadsafe(begun.set)
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.05)
            seen.append("cleaned up")

    running = asyncio.create_task(side.run(work()))
    async with asyncio.timeout(LIMIT_S):
        await begun.wait()
        running.cancel()
        await asyncio.wait([running])
    assert running.cancelled()
    assert seen == ["cleaned up"]


async def test_work_that_is_cancelled_at_once_leaves_nobody_waiting(side: SideLoop) -> None:
    """Begun or not yet: the caller hears of its end."""
    seen: list[str] = []

    async def work() -> None:
        seen.append("begun")
        await asyncio.sleep(3600)

    async with asyncio.timeout(LIMIT_S):
        running = asyncio.create_task(side.run(work()))
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
    assert running.cancelled()


async def test_leaving_does_not_wait_for_a_thread_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread cannot be stopped: the process goes on without it."""
    monkeypatch.setattr("worker.side_loop.STOP_WITHIN_S", 0.05)
    release = threading.Event()

    async def hang() -> None:
        release.wait(LIMIT_S)

    async with asyncio.timeout(LIMIT_S):
        async with SideLoop("hangs") as hanging:
            running = asyncio.create_task(hanging.run(hang()))
            await asyncio.sleep(0)
            running.cancel()
            await asyncio.wait([running])
        assert not release.is_set()
    release.set()


async def test_a_call_from_beside_is_done_at_home(side: SideLoop) -> None:
    """The health pages ask what belongs to the worker's loop in that loop, and hear what it says."""

    async def where() -> int:
        return threading.get_ident()

    async def fail() -> None:
        raise ZeroDivisionError("at home")

    assert await side.run(from_beside(where)()) == threading.get_ident()
    with pytest.raises(ZeroDivisionError, match="at home"):
        await side.run(from_beside(fail)())
