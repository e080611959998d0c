"""The guard around each command: its time, the cancels of others, and what it tells of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import redis.exceptions

from queue_backends import BackendUnavailable
from queue_backends.redis.client import RedisClient

LONG_S = 30.0
SHORT_S = 0.01


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a test on either event loop."""
    if request.param == "asyncio":
        return asyncio.run
    uvloop = pytest.importorskip("uvloop")

    def run_on_uvloop(test: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.wait_for(test, LONG_S))

    return run_on_uvloop


def _client() -> RedisClient:
    return RedisClient("redis://127.0.0.1:1")


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


def _cancels() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


def test_what_takes_too_long_is_no_cancel(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """It is said how long was waited, and the task counts no cancel afterwards."""

    async def body() -> None:
        with pytest.raises(BackendUnavailable, match=r"no answer within 0\.01 s"), _client()._guarded(SHORT_S):
            await _forever()
        assert _cancels() == 0
        await asyncio.sleep(0)

    run(body())


def test_a_cancel_at_the_same_moment_is_obeyed(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """In either order: the one who cancels is not told that the server was slow."""

    async def body() -> None:
        for is_cancelled_first in (True, False):
            guards: list[Any] = []

            async def wait(guards: list[Any] = guards) -> None:
                with _client()._guarded(LONG_S) as guard:
                    guards.append(guard)
                    await _forever()

            task = asyncio.create_task(wait())
            await asyncio.sleep(0)
            for act in (task.cancel, guards[0].give_up)[:: 1 if is_cancelled_first else -1]:
                act()
            await asyncio.wait([task])
            assert task.cancelled()

    run(body())


def test_an_error_on_the_way_out_does_not_undo_a_cancel(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """What the driver raises while it cleans up is not what happened."""

    async def body() -> None:
        async def wait() -> None:
            with _client()._guarded(LONG_S):
                try:
                    await _forever()
                finally:
                    raise redis.exceptions.ConnectionError("gone")

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(body())


def test_one_inside_another(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """Only the one whose time is over says so; the other goes on."""

    async def body() -> None:
        with _client()._guarded(LONG_S):
            with pytest.raises(BackendUnavailable), _client()._guarded(SHORT_S):
                await _forever()
            await asyncio.sleep(0)
        with pytest.raises(BackendUnavailable, match=r"within 0\.01 s"), _client()._guarded(SHORT_S):
            await _guarded_for_long()
        assert _cancels() == 0

    run(body())


def test_time_limits_and_groups_around_it_work(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """asyncio's own count cancels too: each finds that it was its own."""

    async def body() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_guarded_for_long(), SHORT_S)
        async with asyncio.timeout(LONG_S):
            with pytest.raises(BackendUnavailable), _client()._guarded(SHORT_S):
                await _forever()
        with pytest.raises(ExceptionGroup) as failed:
            await _in_a_group_that_fails()
        assert [type(error) for error in failed.value.exceptions] == [ZeroDivisionError]
        assert _cancels() == 0

    run(body())


def test_after_a_cancel_that_is_being_obeyed_commands_still_have_their_time(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    """Whoever cleans up talks to the server yet: a time-out there is one, and the cancel stays."""

    async def body() -> None:
        ended: list[BaseException] = []

        async def wait() -> None:
            try:
                await _forever()
            except asyncio.CancelledError:
                try:
                    with _client()._guarded(SHORT_S):
                        await _forever()
                except BackendUnavailable as error:
                    ended.append(error)
                raise

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert len(ended) == 1

    run(body())


async def _guarded_for_long() -> None:
    async with asyncio.timeout(LONG_S):
        with _client()._guarded(LONG_S):
            await _forever()


async def _in_a_group_that_fails() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_fail())
        await _guarded_for_long()


async def _fail() -> None:
    raise ZeroDivisionError
