"""Tasks that find no room for their model call: they give their slot back, come again, and end at last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import providers
from providers import ChatProvider, Message, RateLimited, Role, StopReason, TextPart, TurnEnd, TurnEvent, TurnRequest
from queue_backends import Backend, Task, TaskState, TokenUsage, open_backend
from worker.assembly import open_worker
from worker.client import Fleet
from worker.journal import AttemptEnded, entries_of, read_journal
from worker.settings import load_settings
from worker.worker import Worker

LIMIT_S = 30.0
ONE_AT_A_TIME = {"main": {"concurrent": 1}}


class Vendor(ChatProvider):
    """Answers calls once it is allowed to, or refuses them."""

    name = "vendor-with-limits"

    def __init__(self) -> None:
        self.requests: list[TurnRequest] = []
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.refusals: list[RateLimited] = []

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        self.requests.append(request)
        self.asked.set()
        if self.refusals:
            raise self.refusals.pop()
        await self.may_answer.wait()
        answer = Message(role=Role.ASSISTANT, parts=(TextPart(text="well"),))
        usage = TokenUsage(input_tokens=10, output_tokens=5)
        yield TurnEnd(message=answer, stop_reason=StopReason.END_TURN, usage=usage)


@pytest.fixture
def vendor() -> Vendor:
    """The provider of this test's tasks."""
    vendor = Vendor()
    providers.register(vendor.name, lambda: vendor)
    return vendor


@asynccontextmanager
async def worker_with(**settings: Any) -> AsyncIterator[tuple[Fleet, Worker, Backend]]:
    """A worker whose tasks call the vendor, under limits."""
    overrides = {"agent.model": "m", "agent.provider": Vendor.name, "limit_wait_s": 0.05, **settings}
    loaded = load_settings({}, file=None, overrides=overrides)
    async with await open_backend("memory://", loaded.backend) as backend, open_worker(loaded, backend) as worker:
        yield Fleet(backend), worker, backend


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Look until it is so."""
    async with asyncio.timeout(LIMIT_S):
        while not await condition():
            await asyncio.sleep(0.01)


async def delayed(backend: Backend, task_id: str) -> Task:
    """Wait until a task has given its slot back; the task as it waits."""
    found: list[Task] = []

    async def is_delayed() -> bool:
        (status,) = await backend.queue.status([task_id])
        if status.state is TaskState.DELAYED and status.task is not None:
            found.append(status.task)
        return bool(found)

    await until(is_delayed)
    return found[0]


async def test_a_task_gives_its_slot_back_and_comes_again(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits in the queue, for everyone to see and without a failed attempt, and is answered later on."""
    monkeypatch.setattr("worker.rate_limits.clerk._LATER_S", (0.1, 0.2))
    async with worker_with(limits=ONE_AT_A_TIME, concurrency=2) as (fleet, worker, backend):
        first = (await fleet.submit("first")).id
        await asyncio.wait_for(vendor.asked.wait(), LIMIT_S)
        second = (await fleet.submit("second")).id
        assert (await delayed(backend, second)).attempt == 0

        async def has_free_slot() -> bool:
            return worker.running == 1

        await until(has_free_slot)
        vendor.may_answer.set()
        for task_id in (first, second):
            assert (await backend.queue.wait(task_id, LIMIT_S)).output == "well"
        entries = entries_of(await read_journal(backend.state, second))
        ended = [entry for entry in entries if isinstance(entry, AttemptEnded)]
        assert ended
        assert {entry.how for entry in ended} == {"postponed"}
        assert "rate limit 'main'" in ended[0].error
        assert len({entry.since for entry in ended}) == 1
        assert len(vendor.requests) == 2


async def test_a_refused_call_counts_as_no_failure(vendor: Vendor) -> None:
    """The vendor wants no calls for a minute: the task comes again after it, with its first attempt still to come, and
    other tasks of the key do not even ask."""
    vendor.refusals = [RateLimited("too fast", retry_after_s=60.0)]
    async with worker_with(limits={"main": {"requests_per_min": 600}}) as (fleet, _, backend):
        first = (await fleet.submit("first")).id
        task = await delayed(backend, first)
        assert task.attempt == 0
        second = (await fleet.submit("second")).id
        await delayed(backend, second)
        for status in await backend.queue.status([first, second]):
            assert status.due_at is not None
            assert status.due_at > time.time() + 30
        assert len(vendor.requests) == 1


@pytest.mark.parametrize("journal", [True, False])
async def test_nobody_waits_for_ever(vendor: Vendor, journal: bool) -> None:
    """A task that finds no room for as long as is allowed is given up, whether a journal is kept or not."""
    settings = {"limits": ONE_AT_A_TIME, "max_postponed_s": 1, "journal": journal, "grace_s": 0}
    async with worker_with(**settings) as (fleet, _, backend):
        await fleet.submit("holds the only place")
        await asyncio.wait_for(vendor.asked.wait(), LIMIT_S)
        result = await backend.queue.wait((await fleet.submit("waits")).id, LIMIT_S)
        assert result.error.startswith("gave up after ")
        assert "rate limit 'main'" in result.error
        assert "SHOAL_MAX_POSTPONED_SECONDS" in result.error
        (letter,) = await backend.queue.dead_letters()
        assert letter.task_id == result.task_id
        vendor.may_answer.set()


async def test_a_deadline_counts_while_a_task_waits(vendor: Vendor) -> None:
    """It comes back when its deadline passes, not when there may be room, and says that it is too late."""
    async with worker_with(limits=ONE_AT_A_TIME, grace_s=0) as (fleet, _, backend):
        await fleet.submit("holds the only place")
        await asyncio.wait_for(vendor.asked.wait(), LIMIT_S)
        task_id = await backend.queue.submit(Task(prompt="waits", deadline=time.time() + 1.0))
        result = await backend.queue.wait(task_id, LIMIT_S)
        assert "deadline" in result.error
        vendor.may_answer.set()


async def test_a_cancelled_task_does_not_come_again(vendor: Vendor) -> None:
    """It is cancelled while it waits for room: it ends at once."""
    async with worker_with(limits=ONE_AT_A_TIME, grace_s=0) as (fleet, _, backend):
        await fleet.submit("holds the only place")
        await asyncio.wait_for(vendor.asked.wait(), LIMIT_S)
        task_id = (await fleet.submit("waits")).id
        await delayed(backend, task_id)
        await backend.queue.cancel([task_id])
        assert (await backend.queue.wait(task_id, LIMIT_S)).error == "run cancelled"
        vendor.may_answer.set()
