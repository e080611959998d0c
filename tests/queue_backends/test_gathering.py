"""Items that are submitted one by one, and travel together: what goes in which batch, and who hears of what."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from queue_backends.errors import BackendUnavailable, QueueFull
from queue_backends.gathering import Batch, Gatherer, by_tasks

LIMIT_S = 10


class Engine:
    """Keeps batches until the test ends them."""

    def __init__(self, *, may_follow: bool | None = True) -> None:
        self.may_follow = may_follow
        self.begun: list[Batch[str]] = []
        follows = None if may_follow is None else lambda: bool(self.may_follow)
        self.gatherer = Gatherer(self.begun.append, len, may_follow=follows)

    @property
    def items(self) -> list[list[str]]:
        """What was begun, batch by batch."""
        return [list(batch.items) for batch in self.begun]

    def accept(self, batch: Batch[str]) -> None:
        """Give each item its id."""
        batch.end([f"id of {item}" for item in batch.items])

    async def submit(self, items: Sequence[str]) -> list[asyncio.Task[str]]:
        """Callers who all submit in one turn of the event loop, as far as they get by themselves."""
        tasks = [asyncio.create_task(self._submit(item)) for item in items]
        for _ in range(3):
            await asyncio.sleep(0)
        return tasks

    async def _submit(self, item: str) -> str:
        return await self.gatherer.submit(item)


def _items(count: int, name: str = "") -> list[str]:
    return [f"{name}{number}" for number in range(count)]


async def _in_halves(engine: Engine, count: int) -> list[asyncio.Task[str]]:
    """So many callers, of whom there were as many before: two batches are under way."""
    await engine.submit(_items(count, "earlier "))
    while any(not _is_ended(batch) for batch in engine.begun):
        engine.accept(next(batch for batch in engine.begun if not _is_ended(batch)))
    engine.begun.clear()
    return await engine.submit(_items(count))


def _is_ended(batch: Batch[str]) -> bool:
    return all(future.done() for future in batch._accepted)


async def _answers(tasks: Sequence[asyncio.Task[str]]) -> list[str | BaseException]:
    async with asyncio.timeout(LIMIT_S):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_alone_does_not_wait() -> None:
    """With nothing under way an item goes in the turn in which it comes."""
    engine = Engine()
    (task,) = await engine.submit(["alone"])
    assert engine.items == [["alone"]]
    engine.accept(engine.begun[0])
    assert await _answers([task]) == ["id of alone"]


async def test_half_of_the_callers_travel_while_the_others_prepare() -> None:
    """Twenty who submit again together go in two batches, in order, the second before the first has ended."""
    engine = Engine()
    tasks = await _in_halves(engine, 20)
    assert engine.items == [_items(20)[:10], _items(20)[10:]]
    for batch in engine.begun:
        engine.accept(batch)
    assert await _answers(tasks) == [f"id of {item}" for item in _items(20)]


async def test_an_odd_number_is_halved_too() -> None:
    """The smaller half does not wait for the larger one."""
    engine = Engine()
    await _in_halves(engine, 21)
    assert engine.items == [_items(21)[:11], _items(21)[11:]]


async def test_a_few_are_not_split() -> None:
    """Batches of a few cost more than they save."""
    engine = Engine()
    await _in_halves(engine, 7)
    assert engine.items == [_items(7)]


async def test_a_few_wait_while_most_are_under_way() -> None:
    """Else the callers would stay split into one large and one tiny batch for good."""
    engine = Engine()
    await engine.submit(_items(40, "most "))
    late = await engine.submit(_items(9, "late "))
    assert engine.items == [_items(40, "most ")]
    engine.accept(engine.begun[0])
    assert engine.items[1:] == [_items(9, "late ")]
    engine.accept(engine.begun[1])
    assert await _answers(late) == [f"id of late {number}" for number in range(9)]


async def test_no_more_than_two_are_under_way() -> None:
    """What comes meanwhile gathers, and goes once one of them has ended."""
    engine = Engine()
    await _in_halves(engine, 20)
    await engine.submit(_items(30, "late "))
    assert len(engine.begun) == 2
    engine.accept(engine.begun[0])
    assert engine.items[2:] == [_items(30, "late ")]


@pytest.mark.parametrize("may_follow", [None, False])
async def test_one_after_the_other_where_none_may_follow(may_follow: bool | None) -> None:
    """An engine that cannot tell which of two arrives first gets one at a time, each with all that has come."""
    engine = Engine(may_follow=may_follow)
    await engine.submit(_items(20))
    await engine.submit(_items(40, "late "))
    assert sum(map(len, engine.items)) <= 20
    while engine.items[-1][-1] != "late 39":
        engine.accept(engine.begun[-1])
    assert [item for batch in engine.items for item in batch] == [*_items(20), *_items(40, "late ")]


async def test_a_refused_batch_does_not_touch_the_other() -> None:
    """Each caller of the refused one has an error of its own; those of the other have their ids."""
    engine = Engine()
    tasks = await _in_halves(engine, 20)
    engine.begun[0].refuse(BackendUnavailable("away"))
    engine.accept(engine.begun[1])
    answers = await _answers(tasks)
    assert all(isinstance(answer, BackendUnavailable) for answer in answers[:10])
    assert len({id(answer) for answer in answers[:10]}) == 10
    assert answers[10:] == [f"id of {number}" for number in range(10, 20)]


async def test_items_can_be_refused_by_themselves() -> None:
    """The others of their batch have their ids."""
    engine = Engine()
    tasks = await engine.submit(["fits", "does not"])
    engine.begun[0].end(["id", QueueFull("no room")])
    first, second = await _answers(tasks)
    assert first == "id"
    assert isinstance(second, QueueFull)


async def test_a_cancelled_caller_disturbs_nobody() -> None:
    """Its item is on its way all the same; the others have their ids."""
    engine = Engine()
    tasks = await engine.submit(_items(3))
    tasks[1].cancel()
    await asyncio.sleep(0)
    engine.accept(engine.begun[0])
    assert tasks[1].cancelled() or isinstance((await _answers(tasks))[1], asyncio.CancelledError)
    assert [(await _answers(tasks))[n] for n in (0, 2)] == ["id of 0", "id of 2"]


async def test_close_lets_everything_arrive() -> None:
    """What is under way, and what waits for its turn, whether somebody still waits for it or not."""
    engine = Engine()
    tasks = await _in_halves(engine, 20)
    await engine.submit(["late"])
    tasks[0].cancel()
    closing = asyncio.create_task(engine.gatherer.close(LIMIT_S))
    for number in range(3):
        await asyncio.sleep(0)
        assert not closing.done()
        engine.accept(engine.begun[number])
    async with asyncio.timeout(LIMIT_S):
        await closing
    assert engine.items[-1] == ["late"]


async def test_close_waits_no_longer_than_it_is_told() -> None:
    """A batch that never ends holds nobody up for good."""
    engine = Engine()
    await engine.submit(["stuck"])
    async with asyncio.timeout(LIMIT_S):
        await engine.gatherer.close(0.01)


async def test_an_engine_that_fails_at_once_is_heard_of() -> None:
    """Whatever it raises when a batch is begun: callers have it, and the next ones are served."""
    failures = [ValueError("odd")]
    engine = Engine()

    def begin(batch: Batch[str]) -> None:
        if failures:
            raise failures.pop()
        engine.accept(batch)

    gatherer = Gatherer(begin, len)
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(ValueError, match="odd"):
            await gatherer.submit("first")
        assert await gatherer.submit("second") == "id of second"


async def test_tasks_add_one_by_one_what_does_not_fit_together() -> None:
    """A coroutine engine that refuses a whole batch is asked for each item, in order."""
    added: list[str] = []

    async def add(items: Sequence[str]) -> list[str]:
        if len(added) + len(items) > 2:
            raise QueueFull("no room")
        added.extend(items)
        return [f"id of {item}" for item in items]

    gatherer = Gatherer(by_tasks(add), len)
    async with asyncio.timeout(LIMIT_S):
        answers = await asyncio.gather(*map(gatherer.submit, "abcd"), return_exceptions=True)
    assert answers[:2] == ["id of a", "id of b"]
    assert all(isinstance(answer, QueueFull) for answer in answers[2:])


async def test_callers_are_cancelled_when_the_loop_is_left() -> None:
    """The task that adds is cancelled: nobody waits for good, neither those under way nor those behind them."""
    started = asyncio.Event()

    async def add(items: Sequence[str]) -> list[str]:
        started.set()
        return await asyncio.Future()

    gatherer = Gatherer(by_tasks(add), len)
    first = gatherer.submit("first")
    async with asyncio.timeout(LIMIT_S):
        await started.wait()
        second = gatherer.submit("second")
        next(task for task in asyncio.all_tasks() if task.get_name() == "submit").cancel()
        for future in (first, second):
            with pytest.raises(asyncio.CancelledError):
                await future


async def test_what_was_added_by_itself_stays_added() -> None:
    """The queue is nearly full, so that items are tried one by one; then the engine goes away. The first ones have
    their ids: told of a failure, their callers would submit them again."""

    async def add(items: Sequence[str]) -> list[str]:
        if len(items) > 1:
            raise QueueFull("full")
        if items[0] == "2":
            raise BackendUnavailable("gone")
        return [f"id of {items[0]}"]

    gatherer = Gatherer(by_tasks(add), len)
    answers = await _answers([asyncio.create_task(_wait(gatherer.submit(item))) for item in _items(4)])
    assert answers[:2] == ["id of 0", "id of 1"]
    assert isinstance(answers[2], BackendUnavailable)
    assert answers[3] == "id of 3"


async def test_an_error_that_nobody_foresaw_is_no_cancel() -> None:
    """Callers who were not cancelled hear what it was, and the next batch goes its way."""

    async def add(items: Sequence[str]) -> list[str]:
        if "bad" in items:
            raise ZeroDivisionError("unforeseen")
        return list(items)

    gatherer = Gatherer(by_tasks(add), len)
    with pytest.raises(ZeroDivisionError):
        await gatherer.submit("bad")
    assert await gatherer.submit("good") == "good"


async def test_closing_does_not_wait_for_what_was_abandoned() -> None:
    """The event loop is being left: there is nothing to wait for any more."""
    engine = Engine()
    tasks = await engine.submit(_items(3))
    closing = asyncio.create_task(engine.gatherer.close(10 * LIMIT_S))
    await asyncio.sleep(0)
    engine.begun[0].cancel()
    async with asyncio.timeout(LIMIT_S):
        await closing
    assert all(isinstance(answer, asyncio.CancelledError) for answer in await _answers(tasks))


async def _wait(accepted: asyncio.Future[str]) -> str:
    return await accepted
