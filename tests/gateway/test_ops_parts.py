"""The parts behind `/v1/ops`, each by itself: history, the usage book, the feed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from queue_backends import (
    CallOutcome,
    DeadLetter,
    LogRecord,
    QueueStats,
    TokenUsage,
    UsageRecord,
    open_backend,
    register_backend,
)
from queue_backends.memory import open_backend as open_memory
from worker.fleet.monitor import Snapshot
from worker.gateway.ops import usage_book
from worker.gateway.ops.dead_api import for_all
from worker.gateway.ops.feed import Feed
from worker.gateway.ops.history import COARSE_SAMPLES, FINE_SAMPLES, History, Sample, sample_of
from worker.gateway.ops.usage_book import UsageBook, UsageFilter
from worker.usage import OTHER, UsageLedger

HOUR_S = 3600.0
NOW = 1_795_000_000.0
KEEP_S = 90 * 86_400.0


def test_history_is_bounded_and_thins_out() -> None:
    """An hour of samples and a day of minutes, however long it runs; of a minute the peak stays."""
    history = History()
    for step in range(3 * 24 * 1800):
        history.add(Sample(at=2.0 * step, ready=100 if step % 30 == 7 else 1, tasks_per_minute=float(step % 30)))
    fine, coarse = history.fine(), history.coarse()
    assert len(fine.at) == FINE_SAMPLES
    assert COARSE_SAMPLES <= len(coarse.at) <= COARSE_SAMPLES + 1
    assert set(coarse.ready[:-1]) == {100}
    assert set(coarse.tasks_per_minute[:-1]) == {14.5}
    assert history.fine(since=fine.at[-10]).at == fine.at[-10:]


def test_a_queue_that_does_not_answer_leaves_a_gap() -> None:
    """No sample is made up from old figures."""
    assert sample_of(Snapshot(at=1.0, queue=QueueStats(ready=3), problem="away")) is None
    assert sample_of(Snapshot(at=1.0)) is None
    sample = sample_of(Snapshot(at=1.0, queue=QueueStats(ready=3)))
    assert sample is not None
    assert sample.ready == 3


async def test_the_usage_book_reads_each_record_once_and_goes_on() -> None:
    """What is written later is added; asking twice counts nothing twice."""
    register_backend("memory", open_memory)
    async with await open_backend("memory://") as backend:
        book = UsageBook(backend.state, keep_s=KEEP_S, clock=lambda: NOW)
        await backend.state.append_once([log_record(f"t{n}", NOW - n * HOUR_S) for n in range(30)])
        assert await book.catch_up(limit_s=5)
        await backend.state.append_once([log_record("later", NOW)])
        assert await book.catch_up(limit_s=5)
        assert await book.catch_up(limit_s=5)
        assert book.records == 31
        assert book.total(UsageFilter()).calls == 31
        assert book.total(UsageFilter(since=NOW - 2 * HOUR_S)).calls == 4
        assert book.total(UsageFilter(until=NOW - 2 * HOUR_S, tenant="acme")).calls == 28
        assert book.total(UsageFilter(tenant="globex")).calls == 0
        days = [group.key[0] for group in await book.groups(["day"], UsageFilter())]
        assert days == sorted(days)


async def test_a_large_ledger_is_read_in_steps() -> None:
    """When its time is up a reading stops and says so; the next one goes on."""
    register_backend("memory", open_memory)
    async with await open_backend("memory://") as backend:
        await backend.state.append_once([log_record(f"t{n}", NOW) for n in range(2500)])
        book = UsageBook(backend.state, keep_s=KEEP_S, clock=lambda: NOW)
        steps = []
        while not await book.catch_up(limit_s=0):
            steps.append(book.records)
        assert steps == sorted(set(steps))
        assert len(steps) >= 2
        assert (book.records, book.is_complete) == (2500, True)


async def test_the_usage_book_is_bounded() -> None:
    """Beyond its limit names are put together, nothing of the sum is lost; what is too old makes room."""
    register_backend("memory", open_memory)
    async with await open_backend("memory://") as backend:
        records = [log_record(f"t{n}", NOW, agent=f"agent-{n}") for n in range(50)]
        old = log_record("old", NOW - 2 * KEEP_S)
        await backend.state.append_once([old, *records])
        now = NOW
        book = UsageBook(backend.state, keep_s=KEEP_S, most_cells=10, clock=lambda: now)
        await book.catch_up(limit_s=5)
        groups = {group.key[0]: group.calls for group in await book.groups(["agent"], UsageFilter())}
        assert len(groups) <= 11
        assert groups[OTHER] >= 40
        assert book.total(UsageFilter()).calls == 50

        now = NOW + 2 * KEEP_S
        await book.catch_up(limit_s=5)
        await backend.state.append_once([log_record("fresh", now, agent="fresh")])
        await book.catch_up(limit_s=5)
        assert [group.key for group in await book.groups(["agent"], UsageFilter())] == [("fresh",)]


async def test_adding_up_lets_others_take_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is in the book, a gateway's streams go on meanwhile."""
    register_backend("memory", open_memory)
    monkeypatch.setattr(usage_book, "_STEP_CELLS", 3)
    async with await open_backend("memory://") as backend:
        book = UsageBook(backend.state, keep_s=KEEP_S, clock=lambda: NOW)
        await backend.state.append_once([log_record(f"t{n}", NOW - n * HOUR_S) for n in range(30)])
        await book.catch_up(limit_s=5)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        [group] = await book.groups(["agent"], UsageFilter())
        counting.cancel()
        assert group.calls == 30
        assert turns >= 9


async def test_letters_that_stay_do_not_hide_those_behind_them() -> None:
    """Bringing back all of them reaches the oldest, though the newest 1,200 cannot be brought back; and it ends."""
    queue = Letters(stuck=1200, others=700)
    back: list[str] = []

    async def act(ids: Sequence[str]) -> int:
        brought = queue.requeue(ids)
        back.extend(brought)
        return len(brought)

    assert await for_all(queue, act) == 700  # type: ignore[arg-type] # all that it asks of a queue
    assert len(set(back)) == 700


class Letters:
    """The dead letters of a queue, newest first; the newest stay whatever is done."""

    def __init__(self, *, stuck: int, others: int) -> None:
        self._ids = [f"stuck-{n}" for n in range(stuck)] + [f"other-{n}" for n in range(others)]

    async def stats(self) -> QueueStats:
        """How many there are."""
        return QueueStats(dead=len(self._ids))

    async def dead_letters(self, *, limit: int) -> list[DeadLetter]:
        """The newest."""
        return [DeadLetter(id=each, task_id=each, error="", dead_at=0.0, prompt="") for each in self._ids[:limit]]

    def requeue(self, ids: Sequence[str]) -> list[str]:
        """Those that can be brought back."""
        back = [each for each in ids if each in self._ids and not each.startswith("stuck")]
        self._ids = [each for each in self._ids if each not in set(back)]
        return back


async def test_a_newcomer_gets_all_and_then_what_differs() -> None:
    """Equal values are not sent again; audiences do not see each other's parts."""
    feed = Feed()
    async with aclosing(feed.watch("")) as everybody, aclosing(feed.watch("acme")) as acme:
        first = asyncio.ensure_future(anext(everybody))
        own = asyncio.ensure_future(anext(acme))
        await asyncio.sleep(0)
        assert sorted(feed.audiences) == ["", "acme"]
        feed.show("", {"queue": {"ready": 1}, "workers": []})
        feed.show("acme", {"queue": {"ready": 9}})
        assert (await first).data == b'{"ready":1}'
        assert (await own).data == b'{"ready":9}'
        assert (await anext(everybody)).part == "workers"
        following = asyncio.ensure_future(anext(everybody))
        feed.show("", {"queue": {"ready": 1}, "workers": ["w"]})
        event = await following
        assert (event.part, event.data) == ("workers", b'["w"]')


async def test_a_slow_watcher_skips_to_the_newest() -> None:
    """Nothing is kept for it: it gets the last form of each part, once."""
    feed = Feed()
    async with aclosing(feed.watch("")) as slow:
        waiting = asyncio.ensure_future(anext(slow))
        await asyncio.sleep(0)
        feed.show("", {"queue": 0})
        assert (await waiting).data == b"0"
        for number in range(1, 1000):
            feed.show("", {"queue": number, "other": number})
        assert [(await anext(slow)).data, (await anext(slow)).data] == [b"999", b"999"]
        assert feed.watchers == 1
    assert feed.audiences == []
    assert not feed.wanted.is_set()


def log_record(task_id: str, at: float, *, agent: str = "support") -> LogRecord:
    """A model call of acme's, as it is kept."""
    record = UsageRecord(
        id=f"{task_id}:0:0",
        task_id=task_id,
        provider="scripted",
        model="mock",
        usage=TokenUsage(input_tokens=3, output_tokens=1),
        outcome=CallOutcome.COMPLETED,
        started_at=at,
        duration_ms=5,
        cost_usd=0.01,
        agent=agent,
        tenant="acme",
    )
    return UsageLedger(keep_s=10 * KEEP_S).log_record(record)
