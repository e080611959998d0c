"""One value that many processes change: nothing is lost, nothing is done twice, whatever store and callers do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from queue_backends import BackendUnavailable, StateStore, open_backend
from worker.shared_record import Contended, SharedRecord, stored_value

KEY = "shared:test"
LIMIT_S = 30.0


class Tally(Struct):
    """Counts how often each change was made."""

    total: int = 0
    by: dict[str, int] = {}


def plus(name: str) -> Callable[[Tally], tuple[Tally, int]]:
    """A change that counts one, under a name, and answers with the new total."""

    def change(tally: Tally) -> tuple[Tally, int]:
        by = {**tally.by, name: tally.by.get(name, 0) + 1}
        return Tally(tally.total + 1, by), tally.total + 1

    return change


class Moody:
    """A store in front of another one that fails as told: before it does anything, or after, with the answer lost."""

    def __init__(self, inner: StateStore) -> None:
        self._inner = inner
        self.moods: list[str] = []
        self.held = asyncio.Event()
        self.held.set()
        self.asked = asyncio.Event()
        self.steps = 0
        self.always = ""

    async def get(self, key: str) -> bytes | None:
        """As the other one."""
        return await self._inner.get(key)

    async def compare_and_set(
        self, key: str, expected: bytes | None, value: bytes | None, *, ttl_s: float | None = None
    ) -> bool:
        """As the other one, or not."""
        self.steps += 1
        self.asked.set()
        await self.held.wait()
        mood = self.moods.pop(0) if self.moods else self.always
        if mood == "refuses":
            raise BackendUnavailable("nothing was done")
        if mood == "is beaten":
            return False
        done = await self._inner.compare_and_set(key, expected, value, ttl_s=ttl_s)
        if mood == "answers never":
            raise BackendUnavailable("who knows")
        return done


@pytest.fixture
async def state() -> AsyncIterator[StateStore]:
    """A store of this test's own."""
    async with await open_backend("memory://") as backend:
        yield backend.state


@pytest.fixture
def moody(state: StateStore) -> Moody:
    """The store, moody."""
    return Moody(state)


def record_on(store: Any) -> SharedRecord[Tally]:
    """A process' view of the record."""
    return SharedRecord(store, KEY, Tally)


async def test_many_writers_lose_nothing(state: StateStore) -> None:
    """Eight processes' worth of writers, each with many changes at a time: every change is made exactly once, and no
    two of them get the same answer."""
    writers = [record_on(state) for _ in range(8)]
    changes = [writer.update(plus(f"{who}/{n}")) for who, writer in enumerate(writers) for n in range(50)]
    answers = await asyncio.wait_for(asyncio.gather(*changes), LIMIT_S)
    tally = await writers[0].read()
    assert sorted(answers) == list(range(1, 401))
    assert tally.total == 400
    assert set(tally.by.values()) == {1}


async def test_changes_travel_together(moody: Moody) -> None:
    """What comes while a step is under way goes in one next step, however much it is."""
    record = record_on(moody)
    moody.held.clear()
    first = asyncio.create_task(record.update(plus("first")))
    await asyncio.wait_for(moody.asked.wait(), LIMIT_S)
    others = [asyncio.create_task(record.update(plus(str(number)))) for number in range(100)]
    await asyncio.sleep(0)
    moody.held.set()
    await asyncio.wait_for(asyncio.gather(first, *others), LIMIT_S)
    assert moody.steps == 2
    assert (await record.read()).total == 101


async def test_a_lost_answer_is_no_second_change(moody: Moody) -> None:
    """The write was made and its answer lost: it is found again, and not repeated; the caller gets its answer."""
    record, other = record_on(moody), record_on(moody)
    await other.update(plus("before"))
    moody.moods = ["answers never"]
    assert await asyncio.wait_for(record.update(plus("once")), LIMIT_S) == 2
    assert (await other.read()).by == {"before": 1, "once": 1}


async def test_a_lost_answer_is_known_after_others_have_written(moody: Moody, state: StateStore) -> None:
    """Others changed the value between the write whose answer was lost and the look at what became of it."""
    record, other = record_on(moody), record_on(state)
    original = moody.get
    looks = 0

    async def get(key: str) -> bytes | None:
        nonlocal looks
        looks += 1
        if looks == 2:  # after the lost answer
            await other.update(plus("in between"))
        return await original(key)

    moody.get = get  # type: ignore[method-assign]  # this one look is what the test is about
    moody.moods = ["answers never"]
    assert await asyncio.wait_for(record.update(plus("once")), LIMIT_S) == 1
    assert (await other.read()).by == {"once": 1, "in between": 1}


async def test_a_refused_write_is_made_again(moody: Moody) -> None:
    """The first write did not arrive: the second does, once."""
    record = record_on(moody)
    moody.moods = ["refuses"]
    assert await asyncio.wait_for(record.update(plus("once")), LIMIT_S) == 1
    assert (await record.read()).by == {"once": 1}


async def test_a_store_that_stays_away_is_said(moody: Moody) -> None:
    """Twice without an answer: the caller hears of it, and the record works again when the store does."""
    record = record_on(moody)
    moody.moods = ["refuses", "refuses"]
    with pytest.raises(BackendUnavailable):
        await asyncio.wait_for(record.update(plus("never")), LIMIT_S)
    assert await record.update(plus("later")) == 1


async def test_a_cancelled_caller_takes_nobody_along(moody: Moody) -> None:
    """One caller of a step is cancelled while the store works: the change of the other one is made, with its answer."""
    record = record_on(moody)
    moody.held.clear()
    leading = asyncio.create_task(record.update(plus("leading")))
    following = asyncio.create_task(record.update(plus("following")))
    await asyncio.wait_for(moody.asked.wait(), LIMIT_S)
    leading.cancel()
    await asyncio.sleep(0)
    moody.held.set()
    with pytest.raises(asyncio.CancelledError):
        await leading
    answer = await asyncio.wait_for(following, LIMIT_S)
    tally = await record.read()
    assert tally.by["following"] == 1
    assert answer == tally.total


async def test_a_change_that_waits_can_be_taken_back(moody: Moody) -> None:
    """A caller that is cancelled before its step begins has changed nothing."""
    record = record_on(moody)
    moody.held.clear()
    first = asyncio.create_task(record.update(plus("first")))
    await asyncio.wait_for(moody.asked.wait(), LIMIT_S)
    gone = asyncio.create_task(record.update(plus("gone")))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    moody.held.set()
    await asyncio.wait_for(first, LIMIT_S)
    await record.update(plus("last"))
    assert (await record.read()).by == {"first": 1, "last": 1}


async def test_an_error_is_its_callers_alone(state: StateStore) -> None:
    """A change that raises leaves the others of its step as they are."""
    record = record_on(state)

    def fails(_: Tally) -> tuple[Tally, int]:
        raise ValueError("mine")

    results = await asyncio.wait_for(
        asyncio.gather(
            record.update(plus("a")), record.update(fails), record.update(plus("b")), return_exceptions=True
        ),
        LIMIT_S,
    )
    assert isinstance(results[1], ValueError)
    assert (await record.read()).by == {"a": 1, "b": 1}


async def test_nothing_new_is_not_written(moody: Moody) -> None:
    """A change that gives the same object back is a look: the store is not written to, and the look is fresh."""
    record, other = record_on(moody), record_on(moody)
    await record.update(plus("mine"))
    await other.update(plus("theirs"))
    steps = moody.steps
    assert await record.update(lambda tally: (tally, tally.total)) == 2
    assert moody.steps == steps


async def test_endless_contention_ends(moody: Moody) -> None:
    """Somebody else is always faster: that is said, as what may pass."""
    moody.always = "is beaten"
    with pytest.raises(Contended):
        await asyncio.wait_for(record_on(moody).update(plus("never")), LIMIT_S)


async def test_the_stored_value_is_plain(state: StateStore) -> None:
    """A reader of many records finds the value's JSON in what is stored."""
    await record_on(state).update(plus("once"))
    stored = await state.get(KEY)
    assert stored is not None
    assert msgspec.json.decode(stored_value(stored)) == {"total": 1, "by": {"once": 1}}
