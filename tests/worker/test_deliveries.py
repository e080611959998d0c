"""Deliveries under way: they are bounded, independent of each other, and end with the work they belong to."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from structlog.testing import capture_logs

from worker.deliveries.deliveries import Deliveries
from worker.deliveries.trying import Request

WITHIN_S = 10.0


class Post:
    """Delivers when it is told to, and remembers how it went."""

    def __init__(self) -> None:
        self.deliveries = Deliveries(self._deliver, most=3, most_of_one=2, what="letter")
        self.may_go = asyncio.Event()
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.cut: list[str] = []
        self._news = asyncio.Condition()

    async def until_begun(self, count: int) -> None:
        """Wait for so many to have been begun."""
        async with asyncio.timeout(WITHIN_S), self._news:
            await self._news.wait_for(lambda: len(self.begun) >= count)

    async def _deliver(self, key: str) -> None:
        async with self._news:
            self.begun.append(key)
            self._news.notify_all()
        try:
            await self.may_go.wait()
        except asyncio.CancelledError:
            self.cut.append(key)
            raise
        if key == "broken":
            raise LookupError(key)
        self.ended.append(key)


async def test_there_is_room_for_some_and_the_next_begins_when_one_has_ended() -> None:
    """Neither all nor those to one host exceed their bounds; each waits once, and a failure stops no other."""
    post = Post()
    with capture_logs() as logs:
        async with post.deliveries.going_on():
            for key, host in (("broken", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c"), ("a3", "a")):
                post.deliveries.add(key, host)
            await post.until_begun(3)
            assert post.begun == ["broken", "a2", "b1"]
            assert "a3" in post.deliveries
            post.may_go.set()
            await post.until_begun(5)
    assert sorted(post.ended) == ["a2", "a3", "b1", "c1"]
    assert "broken" not in post.deliveries
    assert [line["key"] for line in logs] == ["broken"]


async def test_nothing_outlives_the_work_and_what_waited_is_forgotten() -> None:
    """When a duty is lost, somebody else delivers: what is under way here is cut, and the line is empty afterwards."""
    post = Post()

    async def work() -> None:
        async with post.deliveries.going_on():
            for number in range(4):
                post.deliveries.add(f"a{number}", "a")
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    await post.until_begun(2)
    working.cancel()
    await asyncio.wait([working], timeout=WITHIN_S)
    assert working.cancelled()
    assert sorted(post.cut) == ["a0", "a1"]
    post.may_go.set()
    async with post.deliveries.going_on():
        post.deliveries.add("a3", "a")
    assert post.ended == ["a3"]


async def test_the_end_is_heeded_whatever_a_delivery_makes_of_it() -> None:
    """One that takes a cancellation for a failed try, as a library may, begins no other in its place."""
    begun = asyncio.Event()

    async def deliver(key: str) -> None:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    deliveries = Deliveries(deliver, most=1, most_of_one=1, what="letter")

    async def work() -> None:
        async with deliveries.going_on():
            deliveries.add("a", "a")
            deliveries.add("b", "b")
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    async with asyncio.timeout(WITHIN_S):
        await begun.wait()
        working.cancel()
        await asyncio.wait([working])
    assert working.cancelled()


async def test_nothing_can_be_added_before_it_goes_on_or_afterwards() -> None:
    """It would wait for ever, in silence."""
    deliveries = Deliveries(Post()._deliver, most=1, most_of_one=1, what="letter")
    with pytest.raises(RuntimeError, match="no letter can be delivered: `going_on` is not entered"):
        deliveries.add("a", "a")
    async with deliveries.going_on():
        pass
    with pytest.raises(RuntimeError, match="no letter can be delivered: `going_on` is not entered"):
        deliveries.add("a", "a")


def test_what_is_sent_shows_no_secret_of_itself() -> None:
    """The address of a Slack webhook is a key to it, and headers hold tokens: neither gets into a log by a repr."""
    request = Request(url="https://hooks.example/T0/s3cret", headers={"authorization": "t0ken"}, content=b"b0dy")
    assert repr(request) == "<Request POST, 4 bytes>"
