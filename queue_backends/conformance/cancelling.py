"""Cancelling tasks, wherever they are."""
# ruff: noqa: S101 - tests speak in asserts

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from queue_backends.capabilities import Capability
from queue_backends.conformance.support import (
    PATIENCE_S,
    SHORT_LEASE,
    Conformance,
    OpenBackend,
    all_chunks,
    assert_numbered,
    background,
    contents,
    done,
    failed,
    iterating,
    needs,
    publish,
    pull_nothing,
    pull_one,
    pull_some,
    submit,
    text,
    within,
)
from queue_backends.interfaces import Ack, Backend, CancelOutcome, TaskState
from queue_backends.messages import RUN_CANCELLED, ChunkDraft, ChunkType, Priority, Task


async def _assert_cancelled(backend: Backend, task_id: str, *, said: tuple[str, ...] = ()) -> None:
    """The task has ended as a cancelled one does, in result, state, stream and queue."""
    result = await backend.queue.wait(task_id, PATIENCE_S)
    assert result.error == RUN_CANCELLED
    assert (await backend.queue.status([task_id]))[0].state is TaskState.CANCELLED
    chunks = await all_chunks(backend, task_id)
    assert_numbered(chunks)
    assert contents(chunks) == list(said)
    assert (chunks[-1].type, chunks[-1].content) == (ChunkType.ERROR, RUN_CANCELLED)
    await pull_nothing(backend)


async def _request_until_heard(backend: Backend, task_id: str, heard: asyncio.Future[str]) -> None:
    """Ask again until the listener is there: nothing tells when its first `anext` has taken effect."""
    async with asyncio.timeout(PATIENCE_S):
        while not heard.done():
            assert await backend.queue.cancel([task_id]) == [CancelOutcome.REQUESTED]
            await asyncio.wait([heard], timeout=0.1)


async def _first(iterator: AsyncIterator[str], wanted: str) -> str:
    async for task_id in iterator:
        if task_id == wanted:
            return task_id
    raise AssertionError("cancellations() ended")


class CancelConformance(Conformance):
    """`cancel` and `cancellations`."""

    @pytest.mark.parametrize("priority", list(Priority))
    @needs(Capability.CANCEL_WAITING)
    async def test_a_ready_task_ends(self, open_backend: OpenBackend, priority: Priority) -> None:
        """A task that waits ends at once, with the error `run cancelled` and one final chunk."""
        backend, other = await open_backend(), await open_backend()
        task_id = await submit(backend, priority=priority)
        assert await other.queue.cancel([task_id]) == [CancelOutcome.CANCELLED]
        await _assert_cancelled(backend, task_id)

    @needs(Capability.CANCEL_WAITING)
    async def test_a_delayed_task_ends(self, open_backend: OpenBackend) -> None:
        """So does a scheduled one."""
        backend = await open_backend()
        task_id = await backend.queue.submit(Task(prompt="later"), run_at=time.time() + 3600)
        assert await backend.queue.cancel([task_id]) == [CancelOutcome.CANCELLED]
        await _assert_cancelled(backend, task_id)
        assert (await backend.queue.stats()).delayed == 0

    @pytest.mark.parametrize("retry_in_s", [3600.0, 0.0, None])
    @needs(Capability.CANCEL_WAITING)
    async def test_a_task_between_two_runs_ends(self, open_backend: OpenBackend, retry_in_s: float | None) -> None:
        """So does one that waits for its next attempt; its stream goes on where it stopped."""
        backend = await open_backend()
        task_id = await submit(backend)
        delivery = await pull_one(backend)
        await publish(backend, delivery, text("a"), text("b"))
        await backend.queue.nack(delivery, "broken", retry_in_s=retry_in_s)
        assert await backend.queue.cancel([task_id]) == [CancelOutcome.CANCELLED]
        await _assert_cancelled(backend, task_id, said=("a", "b"))

    @needs(Capability.CANCEL_WAITING)
    async def test_whoever_waits_is_told(self, open_backend: OpenBackend) -> None:
        """A cancel wakes those who wait for the result, and ends subscriptions."""
        backend, other = await open_backend(), await open_backend()
        task_id = await submit(backend)
        async with (
            background(other.queue.wait(task_id, PATIENCE_S)) as waiter,
            background(all_chunks(other, task_id)) as stream,
        ):
            await backend.queue.cancel([task_id])
            assert (await within(waiter)).error == RUN_CANCELLED
            assert [chunk.content for chunk in await within(stream)] == [RUN_CANCELLED]

    async def test_a_running_task_is_ended_by_its_worker(self, open_backend: OpenBackend) -> None:
        """Its worker hears the id, and what it then writes is the end."""
        engine, worker = await open_backend(), await open_backend()
        task_id = await submit(engine)
        delivery = await pull_one(worker)
        async with (
            iterating(worker.queue.cancellations()) as requests,
            background(_first(requests, task_id)) as heard,
        ):
            await _request_until_heard(engine, task_id, heard)
            assert await within(heard) == task_id
        assert await worker.queue.renew([delivery]) == []
        result = failed(delivery, RUN_CANCELLED)
        final = ChunkDraft(type=ChunkType.ERROR, content=RUN_CANCELLED, is_final=True)
        ended = Ack(delivery=delivery, result=result, chunks=(final,))
        assert await worker.commit([ended]) == []
        await _assert_cancelled(engine, task_id)

    async def test_a_worker_hears_of_what_it_takes_over(self, open_backend: OpenBackend) -> None:
        """A cancel survives the worker that was asked: whoever takes the task over hears of it."""
        engine, former, present = await open_backend(), await open_backend(SHORT_LEASE), await open_backend(SHORT_LEASE)
        task_id = await submit(engine)
        await pull_one(former)
        assert await engine.queue.cancel([task_id]) == [CancelOutcome.REQUESTED]
        async with (
            iterating(present.queue.cancellations()) as requests,
            background(_first(requests, task_id)) as heard,
        ):
            delivery = await pull_one(present)
            async with asyncio.timeout(PATIENCE_S):
                while not heard.done():
                    assert await present.queue.renew([delivery]) == []
                    await asyncio.wait([heard], timeout=0.05)
            assert await heard == task_id

    async def test_a_worker_hears_again_of_what_it_takes_over_from_itself(self, open_backend: OpenBackend) -> None:
        """A worker that heard of a cancel, lost that lease and has the task again is told once more."""
        backend = await open_backend(SHORT_LEASE)
        task_id = await submit(backend)
        await pull_one(backend)
        async with iterating(backend.queue.cancellations()) as requests:
            async with background(_first(requests, task_id)) as heard:
                await _request_until_heard(backend, task_id, heard)
            delivery = await pull_one(backend)
            async with background(_first(requests, task_id)) as heard_again, asyncio.timeout(PATIENCE_S):
                while not heard_again.done():
                    assert await backend.queue.renew([delivery]) == []
                    await asyncio.wait([heard_again], timeout=0.05)

    @pytest.mark.parametrize("retry_in_s", [None, 0.0, 3600.0])
    async def test_a_worker_that_gives_it_back_ends_it(
        self, open_backend: OpenBackend, retry_in_s: float | None
    ) -> None:
        """A running task that was asked to end, and is released or retried instead, ends as cancelled."""
        engine, worker = await open_backend(), await open_backend()
        task_id = await submit(engine)
        delivery = await pull_one(worker)
        await publish(worker, delivery, text("a"))
        assert await engine.queue.cancel([task_id]) == [CancelOutcome.REQUESTED]
        await worker.queue.nack(delivery, "broken", retry_in_s=retry_in_s)
        await _assert_cancelled(engine, task_id, said=("a",))
        stats = await engine.queue.stats()
        assert (stats.ready, stats.running, stats.delayed) == (0, 0, 0)

    async def test_a_worker_may_be_faster(self, open_backend: OpenBackend) -> None:
        """A task that succeeds before its cancel arrives has succeeded, and is nobody's to cancel any more."""
        engine, worker = await open_backend(), await open_backend()
        task_id = await submit(engine)
        delivery = await pull_one(worker)
        await engine.queue.cancel([task_id])
        await worker.queue.ack(delivery, done(delivery, "fast"))
        assert (await engine.queue.wait(task_id, PATIENCE_S)).output == "fast"
        assert await engine.queue.cancel([task_id]) == [CancelOutcome.FINISHED]
        assert (await engine.queue.wait(task_id, PATIENCE_S)).output == "fast"

    async def test_outcomes_in_the_order_asked(self, open_backend: OpenBackend) -> None:
        """One outcome per id, whatever the tasks' states; unknown and ended ones stay as they are."""
        backend = await open_backend()
        ids = await backend.queue.submit_many([Task(prompt=str(number)) for number in range(3)])
        ended, running = await pull_some(backend, 2)
        await backend.queue.ack(ended, done(ended))
        (waiting,) = set(ids) - {ended.task.id, running.task.id}
        outcomes = await backend.queue.cancel(["no-such-task", running.task.id, ended.task.id, waiting, waiting])
        assert outcomes == [
            CancelOutcome.UNKNOWN,
            CancelOutcome.REQUESTED,
            CancelOutcome.FINISHED,
            CancelOutcome.CANCELLED,
            CancelOutcome.FINISHED,
        ]
        assert await backend.queue.results(["no-such-task"]) == [None]
        assert await backend.queue.cancel([]) == []

    async def test_a_cancel_does_not_outlive_its_run(self, open_backend: OpenBackend) -> None:
        """A cancelled task that died and was requeued runs as if nobody had asked."""
        engine, worker = await open_backend(), await open_backend()
        task_id = await submit(engine)
        delivery = await pull_one(worker)
        await engine.queue.cancel([task_id])
        await worker.queue.nack(delivery, RUN_CANCELLED, dead=True)
        (letter,) = await engine.queue.dead_letters()
        await engine.queue.requeue([letter.id])
        delivery = await pull_one(worker)
        await worker.queue.nack(delivery, "", retry_in_s=0)
        assert (await pull_one(worker)).task.id == task_id
