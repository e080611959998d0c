"""Nobody polls: those who wait are woken by what happens, or by the moment that they know of. And what many processes
do at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from queue_backends import Ack, Backend, BackendOptions, BackendUnavailable, QueueFull, Task, TaskResult, open_backend
from queue_backends.conformance.support import (
    FINAL,
    all_chunks,
    background,
    contents,
    done,
    publish,
    pull_one,
    pull_some,
    submit,
    text,
    within,
)
from queue_backends.postgresql import chunks, pulling, queue
from queue_backends.postgresql.backend import PostgresqlBackend
from queue_backends.postgresql.submitting import Submitter
from tests.postgresql_servers import PostgresqlServer

LONG = BackendOptions(lease_s=3000)
"""No pull of these looks by itself because a lease might have run out."""


@pytest.fixture(autouse=True)
def _never_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a wake-up, everybody here waits longer than any test."""
    monkeypatch.setattr(pulling, "LONGEST_SLEEP_S", 1000.0)
    monkeypatch.setattr(queue, "RESULT_RECHECK_S", 1000.0)
    monkeypatch.setattr(chunks, "RECHECK_S", 1000.0)


@pytest.fixture
async def pair(postgresql_server: PostgresqlServer, stream: str) -> AsyncIterator[tuple[Backend, Backend]]:
    """Two processes of one fresh queue."""
    url = postgresql_server.url(stream)
    async with await open_backend(url, LONG) as one, await open_backend(url, LONG) as other:
        yield one, other


async def _waits(future: asyncio.Future[Any], backend: Backend) -> None:
    """Give what was started time to wait; nothing tells when it does. If it does not yet, the test proves less."""
    await backend.queue.ping()
    await asyncio.wait([future], timeout=0.3)
    assert not future.done()


_WAKES: dict[str, Callable[[Backend], Coroutine[Any, Any, object]]] = {
    "submit": lambda backend: backend.queue.submit(Task(prompt="x")),
    "submit_many": lambda backend: backend.queue.submit_many([Task(prompt="x")]),
    "soon": lambda backend: backend.queue.submit(Task(prompt="x"), run_at=time.time() + 0.5),
}


@pytest.mark.parametrize("wake", _WAKES)
async def test_a_pull_is_woken(pair: tuple[Backend, Backend], wake: str) -> None:
    """By a task that comes, now or in a moment."""
    engine, worker = pair
    async with background(worker.queue.pull(1, 300)) as pulled:
        await _waits(pulled, engine)
        await _WAKES[wake](engine)
        assert len(await within(pulled)) == 1


@pytest.mark.parametrize("retry_in_s", [None, 0.0, 0.5])
async def test_a_pull_is_woken_by_what_comes_back(pair: tuple[Backend, Backend], retry_in_s: float | None) -> None:
    """Released, retried, or retried after a while."""
    one, other = pair
    task_id = await submit(one)
    delivery = await pull_one(one)
    async with background(other.queue.pull(1, 300)) as pulled:
        await _waits(pulled, one)
        await one.queue.nack(delivery, "x", retry_in_s=retry_in_s)
        assert [each.task.id for each in await within(pulled)] == [task_id]


async def test_a_pull_is_woken_by_a_requeue_and_a_resume(pair: tuple[Backend, Backend]) -> None:
    """What an operator does counts at once."""
    one, other = pair
    await submit(one)
    await one.queue.nack(await pull_one(one), "x", dead=True)
    (letter,) = await one.queue.dead_letters()
    async with background(other.queue.pull(1, 300)) as pulled:
        await _waits(pulled, one)
        await one.queue.requeue([letter.id])
        assert len(await within(pulled)) == 1
    await one.queue.pause()
    await submit(one)
    async with background(other.queue.pull(1, 300)) as pulled:
        await _waits(pulled, one)
        await one.queue.resume()
        assert len(await within(pulled)) == 1


async def test_a_lease_that_runs_out_wakes_a_pull(postgresql_server: PostgresqlServer, stream: str) -> None:
    """A pull that waits knows when the next lease may run out, a renewed one included."""
    url, brief = postgresql_server.url(stream), BackendOptions(lease_s=1)
    async with await open_backend(url, brief) as one, await open_backend(url, LONG) as other:
        assert isinstance(other, PostgresqlBackend)
        other._connections.availability._silence_ended_at = float("-inf")  # though the server has just been started
        await submit(one)
        delivery = await pull_one(one)
        async with background(other.queue.pull(1, 300)) as pulled:
            await _waits(pulled, one)
            assert await one.queue.renew([delivery]) == []
            (taken,) = await within(pulled)
        assert (taken.task.id, taken.redeliveries) == (delivery.task.id, 1)


async def test_results_and_chunks_are_announced(pair: tuple[Backend, Backend]) -> None:
    """A waiter and a subscriber in another process hear of each write, long ones and those of a cancel included."""
    worker, engine = pair
    ids = await engine.queue.submit_many([Task(prompt="runs"), Task(prompt="waits")])
    delivery = await pull_one(worker)
    async with (
        background(all_chunks(engine, ids[0])) as stream,
        background(engine.queue.wait(ids[0], 300)) as waiter,
        background(all_chunks(engine, ids[1])) as other_stream,
        background(engine.queue.wait(ids[1], 300)) as other_waiter,
    ):
        await _waits(stream, engine)
        for content in ("short", "x" * 20_000, "short again"):
            await publish(worker, delivery, text(content))
        assert await worker.commit([Ack(delivery=delivery, result=done(delivery), chunks=(FINAL,))]) == []
        await worker.queue.cancel([ids[1]])
        assert [len(content) for content in contents(await within(stream))] == [5, 20_000, 11]
        assert (await within(waiter)).ok
        assert [chunk.is_final for chunk in await within(other_stream)] == [True]
        assert not (await within(other_waiter)).ok


async def test_many_processes_share_a_depth_limit(postgresql_server: PostgresqlServer, stream: str) -> None:
    """Processes that submit at the same time add exactly as many tasks as there is room for."""
    url, options = postgresql_server.url(stream), BackendOptions(max_depth=7)
    backends = [await open_backend(url, options) for _ in range(5)]
    try:
        submits = [backends[n % 5].queue.submit_many([Task(prompt=str(n))]) for n in range(40)]
        answers = await asyncio.gather(*submits, return_exceptions=True)
        assert sum(isinstance(answer, list) for answer in answers) == 7
        assert sum(isinstance(answer, QueueFull) for answer in answers) == 33
        assert (await backends[0].queue.stats()).ready == 7
    finally:
        for backend in backends:
            await backend.close()


async def test_a_repeated_submit_of_an_ended_task_adds_nothing(pair: tuple[Backend, Backend]) -> None:
    """The reply was lost, the task has been run to its end, and only then comes the repetition."""
    one, _ = pair
    assert isinstance(one, PostgresqlBackend)
    submitter: Submitter = one._queue._submitter
    entries = submitter.checked([Task(prompt="once")], None)
    (task_id,) = await submitter._add(entries)
    delivery = await pull_one(one)
    await one.queue.ack(delivery, done(delivery))
    assert await submitter._add(entries) == [task_id]
    assert await one.queue.pull(1, 0) == []


async def test_writers_in_each_others_way_lose_nothing(pair: tuple[Backend, Backend]) -> None:
    """Workers that renew, publish, commit and cancel the same tasks at the same time: every task ends once."""
    one, other = pair
    ids = await one.queue.submit_many([Task(prompt=str(number)) for number in range(60)])
    deliveries = await pull_some(one, 60)
    order = deliveries[::-1]
    ends = [Ack(delivery=each, result=done(each), chunks=(text("x"), FINAL)) for each in deliveries]
    lost, *_ = await asyncio.gather(
        one.commit(ends),
        *(one.queue.renew(order) for _ in range(5)),
        *(other.queue.cancel(ids[start : start + 20]) for start in (40, 20, 0)),
        *(other.queue.stats() for _ in range(5)),
    )
    assert lost == []
    assert [result.output if result else "" for result in await other.queue.results(ids)] == ["done"] * 60
    stats = await other.queue.stats()
    assert (stats.ready, stats.running) == (0, 0)


async def test_closing_ends_waits(postgresql_server: PostgresqlServer, stream: str) -> None:
    """Those who wait for results in a process that closes are told so."""
    async with await open_backend(postgresql_server.url(stream), LONG) as backend:
        ids = await backend.queue.submit_many([Task(prompt="x")] * 20)
        waiters = [asyncio.ensure_future(backend.queue.wait(task_id, 300)) for task_id in ids]
        await asyncio.wait(waiters, timeout=0.1)
        waiters += [asyncio.ensure_future(backend.queue.wait(task_id, 300)) for task_id in ids]
        await asyncio.sleep(0)
        await backend.close()
        async with asyncio.timeout(30):
            ends = await asyncio.gather(*waiters, return_exceptions=True)
    assert {type(end) for end in ends} == {BackendUnavailable}


async def test_many_waiters_are_answered_together(pair: tuple[Backend, Backend]) -> None:
    """Three hundred who wait, one of whom gives up: each gets its own result."""
    worker, engine = pair
    assert isinstance(engine, PostgresqlBackend)
    ids = await engine.queue.submit_many([Task(prompt=str(number)) for number in range(300)])
    waiters = [asyncio.ensure_future(engine.queue.wait(task_id, 300)) for task_id in ids]
    await asyncio.wait(waiters, timeout=0.5)  # lets them begin to wait; else the test proves less
    waiters[7].cancel()
    deliveries = await pull_some(worker, 300)
    ends = [Ack(delivery=each, result=done(each, each.task.prompt)) for each in deliveries]
    assert await worker.commit(ends) == []
    async with asyncio.timeout(30):
        results = await asyncio.gather(*waiters, return_exceptions=True)
    outputs = [result.output if isinstance(result, TaskResult) else "" for result in results]
    assert outputs == ["" if number == 7 else str(number) for number in range(300)]
