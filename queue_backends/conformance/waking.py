"""Waking tasks that wait for their moment."""
# ruff: noqa: S101 - tests speak in asserts

from __future__ import annotations

import asyncio
import time

from queue_backends.capabilities import Capability
from queue_backends.conformance.support import (
    PATIENCE_S,
    Conformance,
    OpenBackend,
    background,
    done,
    needs,
    pull_nothing,
    pull_one,
    pull_some,
    submit,
    within,
)
from queue_backends.interfaces import Ack, Backend, CancelOutcome, Delivery, Outcome, Retry, TaskState
from queue_backends.messages import Priority, Task

HOUR_S = 3600.0
PARKINGS = 4
"""A task of the race ends after so many runs."""


class WakeConformance(Conformance):
    """`TaskQueue.wake`."""

    @needs(Capability.WAKE)
    async def test_a_delayed_task_is_woken_once(self, open_backend: OpenBackend) -> None:
        """It is ready at once, whole, and waking it again changes nothing, wherever it is by then."""
        engine, worker = await open_backend(), await open_backend()
        task_id = await engine.queue.submit(Task(prompt="later", meta={"a": "b"}), run_at=time.time() + HOUR_S)
        await pull_nothing(worker)
        assert await engine.queue.wake([task_id]) == [True]
        assert await engine.queue.wake([task_id]) == [False]
        status = (await engine.queue.status([task_id]))[0]
        assert (status.state, status.due_at) == (TaskState.READY, None)
        delivery = await pull_one(worker)
        assert (delivery.task.id, delivery.task.prompt, delivery.task.meta) == (task_id, "later", {"a": "b"})
        assert (delivery.task.attempt, delivery.redeliveries) == (0, 0)
        assert await engine.queue.wake([task_id]) == [False]
        await worker.queue.ack(delivery, done(delivery))
        assert await engine.queue.wake([task_id]) == [False]
        await pull_nothing(worker)
        stats = await engine.queue.stats()
        assert (stats.ready, stats.delayed, stats.running) == (0, 0, 0)

    @needs(Capability.WAKE)
    async def test_a_pull_that_waits_has_it(self, open_backend: OpenBackend) -> None:
        """Whoever is blocked in a pull, in another process, is woken by it."""
        engine, worker = await open_backend(), await open_backend()
        task_id = await engine.queue.submit(Task(prompt="later"), run_at=time.time() + HOUR_S)
        async with background(worker.queue.pull(1, PATIENCE_S)) as pulling:
            await asyncio.wait([pulling], timeout=0.1)
            assert await engine.queue.wake([task_id]) == [True]
            (delivery,) = await within(pulling)
        assert delivery.task.id == task_id

    @needs(Capability.WAKE)
    async def test_a_parked_task_is_woken(self, open_backend: OpenBackend) -> None:
        """One that a worker gave back for later, without a failure, comes again as it was; and again after that."""
        engine, worker = await open_backend(), await open_backend()
        task_id = await engine.queue.submit(Task(prompt="parked"))
        for parkings in range(1, 4):
            delivery = await pull_one(worker)
            assert (delivery.task.attempt, delivery.redeliveries) == (0, 0)
            parked = Retry(delivery=delivery, error="", retry_in_s=HOUR_S, counts=False, next_attempt=parkings)
            assert await engine.queue.wake([task_id]) == [False]  # it runs still
            assert await worker.commit([parked]) == []
            assert (await engine.queue.status([task_id]))[0].state is TaskState.DELAYED
            assert await engine.queue.wake([task_id]) == [True]
        delivery = await pull_one(worker)
        assert (delivery.first, delivery.next_attempt) == (False, 3)
        await worker.queue.ack(delivery, done(delivery))
        await pull_nothing(worker)

    @needs(Capability.WAKE)
    async def test_answers_in_the_order_asked(self, open_backend: OpenBackend) -> None:
        """One per id; whatever was not delayed is left alone, unknown ones too."""
        backend = await open_backend()
        (running,) = [await backend.queue.submit(Task(prompt="running"))]
        await pull_one(backend)
        ready = await backend.queue.submit(Task(prompt="ready"))
        delayed = await backend.queue.submit(Task(prompt="delayed"), run_at=time.time() + HOUR_S)
        asked = ["no such task", running, delayed, ready, delayed]
        assert await backend.queue.wake(asked) == [False, False, True, False, False]
        assert await backend.queue.wake([]) == []
        found = await pull_some(backend, 2)
        assert {delivery.task.id for delivery in found} == {ready, delayed}
        await pull_nothing(backend)

    @needs(Capability.WAKE)
    async def test_many_wake_it_at_once(self, open_backend: OpenBackend) -> None:
        """One of them has woken it, and it is delivered once."""
        backends = [await open_backend() for _ in range(3)]
        task_id = await backends[0].queue.submit(Task(prompt="x"), run_at=time.time() + HOUR_S)
        woken = await asyncio.gather(*(backend.queue.wake([task_id]) for backend in backends * 2))
        assert sum(flag for (flag,) in woken) == 1
        delivery = await pull_one(backends[1])
        await backends[1].queue.ack(delivery, done(delivery))
        await pull_nothing(backends[2])

    @needs(Capability.WAKE)
    async def test_its_priority_counts(self, open_backend: OpenBackend) -> None:
        """A woken task stands where its priority puts it."""
        backend = await open_backend()
        urgent = await backend.queue.submit(Task(prompt="a", priority=Priority.HIGH), run_at=time.time() + HOUR_S)
        await backend.queue.submit(Task(prompt="b"))
        assert await backend.queue.wake([urgent]) == [True]
        if Capability.PRIORITIES not in backend.gaps:
            assert (await pull_one(backend)).task.id == urgent

    @needs(Capability.WAKE)
    async def test_a_cancelled_one_stays_ended(self, open_backend: OpenBackend) -> None:
        """A task that waited ends at once when it is cancelled, and cannot be woken any more."""
        backend = await open_backend()
        await backend.queue.submit(Task(prompt="x"))
        delivery = await pull_one(backend)
        await backend.commit([Retry(delivery=delivery, error="", retry_in_s=HOUR_S, counts=False)])
        assert await backend.queue.cancel([delivery.task.id]) == [CancelOutcome.CANCELLED]
        assert await backend.queue.wake([delivery.task.id]) == [False]
        await pull_nothing(backend)

    @needs(Capability.WAKE)
    async def test_a_pause_holds_what_is_woken(self, open_backend: OpenBackend) -> None:
        """It is ready, and comes once the pause is over."""
        backend = await open_backend()
        task_id = await submit(backend)
        parked = Retry(delivery=await pull_one(backend), error="", retry_in_s=HOUR_S, counts=False)
        assert await backend.commit([parked]) == []
        await backend.queue.pause()
        assert await backend.queue.wake([task_id]) == [True]
        await pull_nothing(backend)
        await backend.queue.resume()
        assert (await pull_one(backend)).task.id == task_id

    @needs(Capability.WAKE)
    async def test_wakes_race_with_all_else(self, open_backend: OpenBackend) -> None:
        """While many park, wake, cancel and end tasks at once, nobody has one twice at a time, and every task comes to
        one end."""
        backends = [await open_backend() for _ in range(3)]
        race = _Race([await submit(backends[0], str(number)) for number in range(12)])
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as racing:
            for backend in backends:
                racing.create_task(race.work(backend))
                racing.create_task(race.wake(backend))
            racing.create_task(race.cancel(backends[0]))
        results = await backends[0].queue.results(race.ids)
        assert {result.task_id for result in results if result is not None} == set(race.ids)
        assert [result.error for result in results if result is not None and result.task_id not in race.doomed] == [
            ""
        ] * (len(race.ids) - len(race.doomed))
        stats = await backends[0].queue.stats()
        assert (stats.ready, stats.delayed, stats.running) == (0, 0, 0)


class _Race:
    """Workers that park each task some times before it ends, and others who wake and cancel meanwhile."""

    def __init__(self, ids: list[str]) -> None:
        self.ids = ids
        self.doomed = set(ids[::4])
        self._held = set[str]()
        self._runs = dict.fromkeys(ids, 0)
        self._begun = {task_id: asyncio.Event() for task_id in ids}
        self._ended = set[str]()

    @property
    def is_over(self) -> bool:
        return len(self._ended) == len(self.ids)

    async def work(self, backend: Backend) -> None:
        while not self.is_over:
            for delivery in await backend.queue.pull(2, 0.05):
                await self._run(backend, delivery)

    async def _run(self, backend: Backend, delivery: Delivery) -> None:
        task_id = delivery.task.id
        assert task_id not in self._held
        assert task_id not in self._ended
        self._held.add(task_id)
        self._runs[task_id] += 1
        self._begun[task_id].set()
        await asyncio.sleep(0)
        self._held.discard(task_id)  # somebody else may have it as soon as the commit is made
        outcome: Outcome = Retry(delivery=delivery, error="", retry_in_s=HOUR_S, counts=False)
        if is_last := self._runs[task_id] >= PARKINGS:
            outcome = Ack(delivery=delivery, result=done(delivery))
        lost = await backend.commit([outcome])
        assert lost == [] or task_id in self.doomed
        if is_last and not lost:
            self._ended.add(task_id)

    async def wake(self, backend: Backend) -> None:
        while not self.is_over:
            await backend.queue.wake(self.ids)
            await asyncio.sleep(0)
            results = await backend.queue.results(self.ids)
            self._ended |= {result.task_id for result in results if result is not None}

    async def cancel(self, backend: Backend) -> None:
        for task_id in self.doomed:
            await self._begun[task_id].wait()
            await backend.queue.cancel([task_id])
