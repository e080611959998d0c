"""Work in the background: it begins and ends with its service, and its errors are not lost."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from worker import background
from worker.background import BackgroundWork, heed_cancellation

WITHIN_S = 10.0


class Bell(BackgroundWork):
    """A service that is its work, and has something to close afterwards."""

    def __init__(self) -> None:
        super().__init__(self._ring, name="bell")
        self.rings = asyncio.Event()
        self.is_clean = False
        self.is_closed = False

    async def stop(self) -> None:
        await super().stop()
        self.is_closed = self.is_clean

    async def _ring(self) -> None:
        try:
            self.rings.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # what is cleaned up may have to be waited for
            self.is_clean = True


async def test_a_service_works_while_it_is_entered_and_has_cleaned_up_when_it_is_left() -> None:
    """The exit waits for the end of the work, and what is closed afterwards is closed after that."""
    async with asyncio.timeout(WITHIN_S):
        async with Bell() as bell:
            await bell.rings.wait()
            assert not bell.is_clean
    assert bell.is_closed


async def test_it_can_be_begun_again_and_stopped_twice_but_not_begun_twice() -> None:
    """A second task of the same work would be one that nobody stops."""
    bell = Bell()
    await bell.stop()
    for _ in range(2):
        bell.rings.clear()
        bell.start()
        with pytest.raises(RuntimeError, match="'bell' was started before"):
            bell.start()
        async with asyncio.timeout(WITHIN_S):
            await bell.rings.wait()
        await bell.stop()
        await bell.stop()


async def test_an_error_is_logged_when_it_happens_not_when_the_work_is_stopped() -> None:
    """A service that stands still is told of while somebody can do something about it."""

    async def fail() -> None:
        raise LookupError("the shelf is empty")

    with capture_logs() as logs:
        async with BackgroundWork(fail, name="shelves"):
            async with asyncio.timeout(WITHIN_S):
                while not logs:
                    await asyncio.sleep(0)
            [line] = logs
            assert line["log_level"] == "error"
            assert line["work"] == "shelves"
            assert isinstance(line["exc_info"], LookupError)
    assert len(logs) == 1


async def test_a_cancellation_is_no_error() -> None:
    """What is stopped says nothing."""
    with capture_logs() as logs:
        async with Bell() as bell:
            await bell.rings.wait()
    assert logs == []


async def test_work_that_does_not_end_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a process is bounded whatever a library makes of cancellation; the log names what hangs."""
    monkeypatch.setattr(background, "STOP_WITHIN_S", 0.01)
    release, begun = asyncio.Event(), asyncio.Event()
    tasks: list[asyncio.Task[None] | None] = []

    async def deaf() -> None:
        tasks.append(asyncio.current_task())
        begun.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    with capture_logs() as logs:
        async with asyncio.timeout(WITHIN_S), BackgroundWork(deaf, name="a deaf one"):
            await begun.wait()
    assert [line["work"] for line in logs] == ["a deaf one"]
    release.set()
    [task] = tasks
    assert task is not None
    await asyncio.wait([task], timeout=WITHIN_S)


async def test_the_body_s_error_comes_through() -> None:
    """The end of the work does not hide why it ended."""
    bell = Bell()

    async def fail_beside_it() -> None:
        async with bell:
            await bell.rings.wait()
            raise KeyError

    with pytest.raises(KeyError):
        await fail_beside_it()
    assert bell.is_closed


async def test_whoever_stops_it_waits_for_its_end() -> None:
    """Two who stop it at the same time, or one whose first stop was cancelled: what has to be cleaned up is, once."""
    begun, ends, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
    interrupted = False

    async def work() -> None:
        nonlocal interrupted
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ends.set()
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                interrupted = True

    background_work = BackgroundWork(work, name="a slow one")
    async with asyncio.timeout(WITHIN_S):
        background_work.start()
        await begun.wait()
        impatient = asyncio.create_task(background_work.stop())
        await ends.wait()
        impatient.cancel()
        await asyncio.wait([impatient])
        assert impatient.cancelled()
        with pytest.raises(RuntimeError, match="stop it first"):
            background_work.start()
        both = [asyncio.create_task(background_work.stop()) for _ in range(2)]
        done, _ = await asyncio.wait(both, timeout=0)
        assert not done
        may_end.set()
        await asyncio.gather(*both)
    assert not interrupted


class _Stubborn:
    """Goes on after each failure of a task group, as those do that follow something over outages."""

    def __init__(self) -> None:
        self.waits = asyncio.Event()

    async def work(self) -> None:
        while True:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._fail_when_cancelled())
                    await asyncio.Event().wait()
            except* LookupError:
                pass
            heed_cancellation()

    async def _fail_when_cancelled(self) -> None:
        self.waits.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise LookupError from None


async def test_work_that_outlives_its_task_groups_heeds_a_cancellation_that_a_group_has_forgotten() -> None:
    """A child that fails while it is cancelled makes the group raise its error instead of the cancellation."""
    stubborn = _Stubborn()
    with capture_logs() as logs:
        async with asyncio.timeout(WITHIN_S), BackgroundWork(stubborn.work, name="stubborn"):
            await stubborn.waits.wait()
    assert logs == []
