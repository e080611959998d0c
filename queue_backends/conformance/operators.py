"""Looking at a queue, and pausing it."""
# ruff: noqa: S101 - tests speak in asserts

from __future__ import annotations

import time

import pytest

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
    submit,
    within,
)
from queue_backends.interfaces import Backend, TaskState
from queue_backends.messages import Priority, Task


async def _one_of_each(backend: Backend) -> dict[TaskState, str]:
    """A task in every state, by state."""
    tasks: dict[TaskState, str] = {}
    tasks[TaskState.SUCCEEDED] = await submit(backend, "succeeds")
    delivery = await pull_one(backend)
    await backend.queue.ack(delivery, done(delivery))
    tasks[TaskState.FAILED] = await submit(backend, "fails")
    await backend.queue.nack(await pull_one(backend), "broken", dead=True)
    tasks[TaskState.CANCELLED] = await submit(backend, "is cancelled")
    await backend.queue.cancel([tasks[TaskState.CANCELLED]])
    tasks[TaskState.RUNNING] = await submit(backend, "runs")
    await pull_one(backend)
    tasks[TaskState.READY] = await submit(backend, "waits")
    tasks[TaskState.DELAYED] = await backend.queue.submit(Task(prompt="is late"), run_at=time.time() + 3600)
    tasks[TaskState.UNKNOWN] = "no-such-task"
    return tasks


_ENDED = {TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED}


class OperatorConformance(Conformance):
    """`status`, `list_tasks`, `stats`, `pause` and `resume`."""

    @needs(Capability.LISTING)
    async def test_every_state_is_told(self, open_backend: OpenBackend) -> None:
        """Status knows each task: its entry while it lives, its result once it has ended."""
        backend, other = await open_backend(), await open_backend()
        tasks = await _one_of_each(backend)
        statuses = await other.queue.status(list(tasks.values()))
        assert [status.id for status in statuses] == list(tasks.values())
        assert [status.state for status in statuses] == list(tasks)
        for status in statuses:
            assert (status.result is not None) == (status.state in _ENDED)
            assert (status.task is not None) == (status.state not in _ENDED | {TaskState.UNKNOWN})
        assert await other.queue.status([]) == []

    @needs(Capability.LISTING)
    async def test_the_list_has_an_order(self, open_backend: OpenBackend) -> None:
        """Running, ready, delayed, then ended ones, newest end first, up to the limit."""
        backend, other = await open_backend(), await open_backend()
        tasks = await _one_of_each(backend)
        order = [TaskState.RUNNING, TaskState.READY, TaskState.DELAYED]
        order += [TaskState.CANCELLED, TaskState.FAILED, TaskState.SUCCEEDED]
        listed = await other.queue.list_tasks()
        assert [(status.state, status.id) for status in listed] == [(state, tasks[state]) for state in order]
        assert [status.id for status in await other.queue.list_tasks(limit=2)] == [status.id for status in listed[:2]]

    @pytest.mark.parametrize("state", [state for state in TaskState if state is not TaskState.UNKNOWN])
    @needs(Capability.LISTING)
    async def test_the_list_can_be_narrowed(self, open_backend: OpenBackend, state: TaskState) -> None:
        """With states given, only tasks in one of them are listed."""
        backend = await open_backend()
        tasks = await _one_of_each(backend)
        assert [status.id for status in await backend.queue.list_tasks(states=[state])] == [tasks[state]]

    async def test_an_empty_queue_has_no_figures(self, open_backend: OpenBackend) -> None:
        """Nothing waits, nothing runs, nothing is listed."""
        backend = await open_backend()
        stats = await backend.queue.stats()
        assert (stats.ready, stats.running, stats.delayed, stats.dead) == (0, 0, 0, 0)
        assert stats.oldest_ready_age_s is None
        assert not stats.paused
        assert await backend.queue.list_tasks() == []

    async def test_figures(self, open_backend: OpenBackend) -> None:
        """Each state is counted, ready ones by priority too, and the head of the queue has an age."""
        backend, other = await open_backend(), await open_backend()
        await _one_of_each(backend)
        for priority, count in ((Priority.HIGH, 2), (Priority.LOW, 3)):
            await backend.queue.submit_many([Task(prompt="x", priority=priority)] * count)
        stats = await other.queue.stats()
        assert (stats.ready, stats.running, stats.delayed, stats.dead) == (6, 1, 1, 1)
        assert stats.ready_by_priority == {Priority.HIGH: 2, Priority.NORMAL: 1, Priority.LOW: 3}
        assert stats.oldest_ready_age_s is not None
        assert 0 <= stats.oldest_ready_age_s < 3600

    @needs(Capability.PAUSE)
    async def test_a_paused_queue_delivers_nothing(self, open_backend: OpenBackend) -> None:
        """While it is paused, nobody receives anything, but tasks are accepted and running ones end as usual."""
        backend, other = await open_backend(), await open_backend()
        await submit(backend)
        running = await pull_one(backend)
        await other.queue.pause()
        task_id = await submit(backend)
        await pull_nothing(backend)
        await pull_nothing(other, 0.1)
        stats = await backend.queue.stats()
        assert (stats.paused, stats.ready, stats.running) == (True, 1, 1)
        assert await backend.queue.renew([running]) == []
        await backend.queue.ack(running, done(running))
        await backend.queue.resume()
        assert not (await other.queue.stats()).paused
        assert (await pull_one(other)).task.id == task_id

    @needs(Capability.PAUSE)
    async def test_a_pause_holds_for_those_who_wait_already(self, open_backend: OpenBackend) -> None:
        """A pull that began before the pause gets nothing that came after it."""
        backend, worker = await open_backend(), await open_backend()
        async with background(worker.queue.pull(1, 0.5)) as pulled:
            await backend.queue.pause()
            task_id = await submit(backend)
            assert await within(pulled) == []
        await backend.queue.resume()
        delivery = await pull_one(worker)
        assert (delivery.task.id, delivery.task.attempt, delivery.redeliveries) == (task_id, 0, 0)

    @needs(Capability.PAUSE)
    async def test_resume_wakes_those_who_wait(self, open_backend: OpenBackend) -> None:
        """A pull that waits out a pause gets its task when the queue is resumed."""
        backend, worker = await open_backend(), await open_backend()
        await backend.queue.pause()
        task_id = await submit(backend)
        async with background(worker.queue.pull(1, PATIENCE_S)) as pulled:
            await pull_nothing(backend, 0.05)
            await backend.queue.resume()
            assert [delivery.task.id for delivery in await within(pulled)] == [task_id]
