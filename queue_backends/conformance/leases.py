"""Leases and fences: a task has one owner, and a former one writes nothing."""
# ruff: noqa: S101 - tests speak in asserts

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from queue_backends.capabilities import Capability
from queue_backends.conformance.support import (
    PATIENCE_S,
    SHORT_LEASE,
    Conformance,
    OpenBackend,
    background,
    contents,
    done,
    failed,
    finish_stream,
    needs,
    pull_nothing,
    pull_one,
    pull_some,
    submit,
    text,
    within,
)
from queue_backends.errors import LeaseLost
from queue_backends.interfaces import (
    Ack,
    Backend,
    BackendOptions,
    CancelOutcome,
    Checkpoint,
    ChunkBatch,
    Dead,
    Delivery,
    LogRecord,
    Progress,
    Release,
    Retry,
    TaskState,
)
from queue_backends.messages import Task

_RECORD = LogRecord(log="log", id="r", value=b"v", keep_s=60, counters={"sums": {"n": 1}})


async def _hand_over(open_backend: OpenBackend) -> tuple[Backend, Delivery, Backend, Delivery]:
    """A worker that fell silent with its delivery, and the one that has the task now."""
    former, present = await open_backend(SHORT_LEASE), await open_backend(SHORT_LEASE)
    await submit(former)
    lost = await pull_one(former)
    held = await pull_one(present)
    assert await present.queue.renew([held]) == []
    return former, lost, present, held


def _former_writes(backend: Backend, lost: Delivery) -> dict[str, Callable[[], Awaitable[object]]]:
    return {
        "ack": lambda: backend.queue.ack(lost, done(lost)),
        "release": lambda: backend.queue.nack(lost, ""),
        "retry": lambda: backend.queue.nack(lost, "no", retry_in_s=0),
        "dead": lambda: backend.queue.nack(lost, "no", dead=True),
    }


def _former_outcomes(lost: Delivery) -> list[Progress]:
    chunks, records = (text("ghost"),), (_RECORD,)
    return [
        Ack(delivery=lost, result=done(lost), chunks=chunks, records=records),
        Retry(delivery=lost, error="no", chunks=chunks, records=records),
        Dead(delivery=lost, result=failed(lost, "no"), chunks=chunks, records=records),
        Release(delivery=lost, chunks=chunks, records=records),
        Checkpoint(delivery=lost, chunks=chunks, records=records),
        Checkpoint(delivery=lost, records=records),
    ]


async def _assert_untouched(backend: Backend, held: Delivery) -> None:
    task_id = held.task.id
    (status,) = await backend.queue.status([task_id])
    assert status.state is TaskState.RUNNING
    assert await backend.queue.results([task_id]) == [None]
    assert await backend.queue.dead_letters() == []
    assert await backend.state.read_log("log") == []
    assert await backend.state.counters("sums") == {}
    assert contents(await finish_stream(backend, held)) == []
    await backend.queue.ack(held, done(held, "mine"))
    (result,) = await backend.queue.results([task_id])
    assert result is not None
    assert result.output == "mine"


class LeaseConformance(Conformance):
    """Who owns a task, and for how long."""

    async def test_an_expired_lease_hands_over(self, open_backend: OpenBackend) -> None:
        """A task whose worker fell silent goes to another one, as the same task, with the crash counted."""
        _, lost, _, held = await _hand_over(open_backend)
        assert held.task.id == lost.task.id
        assert held.redeliveries == 1
        assert held.task.attempt == lost.task.attempt + 1
        assert held.next_attempt > lost.next_attempt
        assert not held.first
        assert (held.entry_id, held.token) != (lost.entry_id, lost.token)

    async def test_each_crash_counts(self, open_backend: OpenBackend) -> None:
        """Every delivery without an answer counts; after `max_deliveries` it is still delivered, to be given up."""
        options = BackendOptions(lease_s=0.2, max_deliveries=1)
        backends = [await open_backend(options) for _ in range(2)]
        await submit(backends[0])
        deliveries = [await pull_one(backends[number % 2]) for number in range(4)]
        assert [delivery.redeliveries for delivery in deliveries] == [0, 1, 2, 3]
        assert [delivery.task.attempt for delivery in deliveries] == [0, 1, 2, 3]
        numbers = [delivery.next_attempt for delivery in deliveries]
        assert numbers == sorted(set(numbers))

    async def test_a_worker_may_get_its_own_task_again(self, open_backend: OpenBackend) -> None:
        """The fence is the delivery's, not the worker's: an expired one stays refused in the same process too."""
        backend = await open_backend(SHORT_LEASE)
        await submit(backend)
        lost = await pull_one(backend)
        held = await pull_one(backend)
        assert await backend.queue.renew([held]) == []
        with pytest.raises(LeaseLost):
            await backend.queue.ack(lost, done(lost))
        assert await backend.queue.renew([lost]) == [lost]
        await backend.queue.ack(held, done(held))

    async def test_a_live_task_is_not_handed_over(self, open_backend: OpenBackend) -> None:
        """Within its lease a task is nobody else's."""
        one, other = await open_backend(), await open_backend()
        await submit(one)
        delivery = await pull_one(one)
        await pull_nothing(other, 0.3)
        await one.queue.ack(delivery, done(delivery))

    async def test_renewal_keeps_the_task(self, open_backend: OpenBackend) -> None:
        """A renewed lease lasts longer than `lease_s`: nobody else receives the task meanwhile."""
        options = BackendOptions(lease_s=1.2)
        one, other = await open_backend(options), await open_backend(options)
        await submit(one)
        delivery = await pull_one(one)

        async def heartbeat() -> None:
            while True:
                assert await one.queue.renew([delivery]) == []
                await asyncio.sleep(0.1)

        async with background(heartbeat()):
            await pull_nothing(other, 2.0)
        await one.queue.ack(delivery, done(delivery))

    @needs(Capability.LEASE_THREAD)
    async def test_a_renewer_keeps_the_task_from_another_loop(self, open_backend: OpenBackend) -> None:
        """While this loop does something else, a thread keeps what this queue pulled, and hears of cancels."""
        options = BackendOptions(lease_s=1.0)
        backend, other = await open_backend(options), await open_backend(options)
        task_id = await submit(backend)
        kept = await pull_one(backend)
        renewer = backend.lease_renewer()
        assert renewer is not None
        assert await other.queue.cancel([task_id]) == [CancelOutcome.REQUESTED]

        async def keep() -> tuple[list[Delivery], list[str]]:
            lost: list[Delivery] = []
            try:
                for _ in range(9):
                    await asyncio.sleep(0.2)
                    lost += await renewer.renew([kept])
                return lost, await renewer.cancel_requests()
            finally:
                await renewer.close()

        async with background(asyncio.to_thread(lambda: asyncio.run(keep()))) as keeping:
            await pull_nothing(other, 1.5)
            lost, to_cancel = await within(keeping)
        assert lost == []
        assert task_id in to_cancel
        assert await backend.queue.renew([kept]) == []

    async def test_renewal_tells_what_is_lost(self, open_backend: OpenBackend) -> None:
        """Among many, exactly those that are no longer held come back, in input order; nothing in, nothing out."""
        former, other = await open_backend(SHORT_LEASE), await open_backend(SHORT_LEASE)
        await former.queue.submit_many([Task(prompt=str(number)) for number in range(3)])
        deliveries = await pull_some(former, 3)
        await former.queue.ack(deliveries[1], done(deliveries[1]))
        lost = [deliveries[1]]
        assert await former.queue.renew(deliveries) == lost
        assert await former.queue.renew([]) == []
        taken = await pull_some(other, 2)
        assert len(taken) == 2
        assert await former.queue.renew(list(reversed(deliveries))) == list(reversed(deliveries))

    @pytest.mark.parametrize("write", ["ack", "release", "retry", "dead"])
    async def test_a_former_owner_writes_nothing(self, open_backend: OpenBackend, write: str) -> None:
        """Every write of a former owner raises LeaseLost and leaves no trace; the present owner goes on."""
        former, lost, present, held = await _hand_over(open_backend)
        with pytest.raises(LeaseLost):
            await _former_writes(former, lost)[write]()
        await _assert_untouched(present, held)

    @pytest.mark.parametrize("kind", range(6), ids=["ack", "retry", "dead", "release", "checkpoint", "records"])
    async def test_a_former_owner_commits_nothing(self, open_backend: OpenBackend, kind: int) -> None:
        """A commit gives back what it could not carry out, and neither its chunks nor its records are written."""
        former, lost, present, held = await _hand_over(open_backend)
        outcome = _former_outcomes(lost)[kind]
        assert await former.commit([outcome]) == [outcome]
        await _assert_untouched(present, held)

    async def test_a_former_owner_publishes_nothing(self, open_backend: OpenBackend) -> None:
        """Chunks of a lost lease are refused, beside good ones that are written."""
        former, lost, present, held = await _hand_over(open_backend)
        await submit(former, "good")
        good = await pull_one(former)
        batches = [ChunkBatch(delivery=each, chunks=(text("piece"),)) for each in (lost, good)]
        assert await former.chunks.publish(batches) == [lost]
        assert contents(await finish_stream(former, good)) == ["piece"]
        await _assert_untouched(present, held)

    async def test_an_ended_task_has_no_owner(self, open_backend: OpenBackend) -> None:
        """After its end, the delivery that ended a task is as good as lost, and the result stays what it was."""
        backend = await open_backend()
        await submit(backend)
        delivery = await pull_one(backend)
        await backend.queue.ack(delivery, done(delivery, "first"))
        for write in _former_writes(backend, delivery).values():
            with pytest.raises(LeaseLost):
                await write()
        assert await backend.queue.renew([delivery]) == [delivery]
        (result,) = await backend.queue.results([delivery.task.id])
        assert result is not None
        assert result.output == "first"
        assert await backend.queue.dead_letters() == []
        await pull_nothing(backend)

    async def test_a_closed_worker_leaves_its_task_to_the_lease(self, open_backend: OpenBackend) -> None:
        """Closing gives up connections only: the task comes back when its lease has run out."""
        former, present = await open_backend(SHORT_LEASE), await open_backend(SHORT_LEASE)
        task_id = await submit(former)
        await pull_one(former)
        await former.close()
        held = await pull_one(present)
        assert (held.task.id, held.redeliveries) == (task_id, 1)

    async def test_a_batch_of_expired_ones_comes_back(self, open_backend: OpenBackend) -> None:
        """All that a dead worker held comes back, each task once, beside new ones."""
        former, present = await open_backend(SHORT_LEASE), await open_backend(SHORT_LEASE)
        ids = await former.queue.submit_many([Task(prompt=str(number)) for number in range(30)])
        await pull_some(former, 20)
        found: list[str] = []
        async with asyncio.timeout(PATIENCE_S):
            while len(found) < 30:
                for delivery in await present.queue.pull(7, PATIENCE_S):
                    await present.queue.ack(delivery, done(delivery))
                    found.append(delivery.task.id)
        assert sorted(found) == sorted(ids)

    async def test_the_lease_of_a_running_task_is_shown(self, open_backend: OpenBackend) -> None:
        """A running task's status tells its worker and since when."""
        backend = await open_backend(BackendOptions(consumer="worker-7"))
        task_id = await submit(backend)
        before = time.monotonic()
        await pull_one(backend)
        (status,) = await backend.queue.status([task_id])
        assert status.state is TaskState.RUNNING
        assert status.worker.startswith("worker-7")
        assert status.leased_s is not None
        assert 0 <= status.leased_s <= time.monotonic() - before + 1
