"""Submitting and pulling: what goes in comes out once, in the right order."""
# ruff: noqa: S101 - tests speak in asserts

from __future__ import annotations

import asyncio
import time

import pytest

from queue_backends.capabilities import Capability
from queue_backends.conformance.support import (
    PATIENCE_S,
    Conformance,
    OpenBackend,
    background,
    done,
    eventually,
    needs,
    pull_nothing,
    pull_one,
    pull_some,
    submit,
    within,
)
from queue_backends.errors import InvalidTask, QueueFull
from queue_backends.interfaces import BackendOptions, TaskState
from queue_backends.messages import Priority, Task

_FULL_TASK = Task(
    prompt="Grüße, 世界 🌍\n\x00 and a NUL",
    agent="writer",
    history=({"role": "user", "content": [{"type": "text", "text": "ü"}]},),
    meta={"ticket": "42", "Ünïcode": "wert"},
    priority=Priority.HIGH,
    deadline=4102444800.25,
    enqueued_at="2026-04-04T17:48:15Z",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    tracestate="a=b",
    baggage="c=d",
    idempotency_key="once",
    tenant="acme",
    session_id="s-1",
    overrides={"model": "other", "limits": [1, 2.5, None, True]},
    stream_key="list-of-the-answer",
)


_REFUSED = {
    "prompt is empty": Task(prompt=" "),
    "prompt has": Task(prompt="far too long"),
    "prompt is no valid": Task(prompt="\ud800"),
    "meta key": Task(prompt="x", meta={"agent": "y"}),
    "meta has": Task(prompt="x", meta=dict.fromkeys(map(str, range(5000)), "")),
    r"meta\['a'\]": Task(prompt="x", meta={"a": "\udfff"}),
    "tenant": Task(prompt="x", tenant="\ud800"),
    "deadline": Task(prompt="x", deadline=float("nan")),
    "history": Task(prompt="x", history=({"a": "\ud800"},)),
    "overrides": Task(prompt="x", overrides={"a": object()}),
}
"""Tasks that no worker could run, by a pattern that the reason must match."""


class DeliveryConformance(Conformance):
    """From `submit` to `pull`."""

    async def test_what_was_submitted_is_delivered(self, open_backend: OpenBackend) -> None:
        """Every field of a task survives the way through the queue, into another process."""
        engine, worker = await open_backend(), await open_backend()
        task_id = await engine.queue.submit(_FULL_TASK)
        delivery = await pull_one(worker)
        assert task_id
        assert delivery.task == Task(
            **{name: getattr(_FULL_TASK, name) for name in Task.__struct_fields__} | {"id": task_id}
        )
        assert delivery.redeliveries == 0
        assert delivery.next_attempt == 0

    async def test_a_new_task_is_first_and_has_its_time(self, open_backend: OpenBackend) -> None:
        """A task that nobody had before says so, is at attempt 0, and knows when it was enqueued."""
        backend = await open_backend()
        await submit(backend)
        delivery = await pull_one(backend)
        assert delivery.first
        assert delivery.task.attempt == 0
        assert delivery.task.enqueued_at.endswith("Z")

    @needs(Capability.ORDER)
    async def test_submit_many_keeps_the_order(self, open_backend: OpenBackend) -> None:
        """Tasks of one call are delivered in the order in which they were given."""
        backend = await open_backend()
        prompts = [f"task {number}" for number in range(300)]
        ids = await backend.queue.submit_many([Task(prompt=prompt) for prompt in prompts])
        assert len(set(ids)) == 300
        deliveries = await pull_some(backend, 300)
        assert [(delivery.task.id, delivery.task.prompt) for delivery in deliveries] == list(
            zip(ids, prompts, strict=True)
        )

    async def test_submit_many_names_each(self, open_backend: OpenBackend) -> None:
        """Ids come back in the order of the tasks, all different; every task is delivered once."""
        backend = await open_backend()
        prompts = [f"task {number}" for number in range(300)]
        ids = await backend.queue.submit_many([Task(prompt=prompt) for prompt in prompts])
        assert len(set(ids)) == 300
        found = {delivery.task.id: delivery.task.prompt for delivery in await pull_some(backend, 300)}
        assert found == dict(zip(ids, prompts, strict=True))

    async def test_nothing_to_submit(self, open_backend: OpenBackend) -> None:
        """No tasks in, no ids out."""
        backend = await open_backend()
        assert await backend.queue.submit_many([]) == []

    @needs(Capability.PRIORITIES)
    async def test_urgent_ones_first_then_in_order(self, open_backend: OpenBackend) -> None:
        """All HIGH ones come before NORMAL ones before LOW ones, and first in, first out among equals."""
        backend = await open_backend()
        for number in range(3):
            for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
                await submit(backend, f"{priority} {number}", priority=priority)
        prompts = [delivery.task.prompt for delivery in await backend.queue.pull(20, PATIENCE_S)]
        assert prompts == [f"{priority} {n}" for priority in ("high", "normal", "low") for n in range(3)]

    @needs(Capability.PRIORITIES)
    async def test_one_at_a_time_is_the_same_order(self, open_backend: OpenBackend) -> None:
        """The order holds over several pulls as well, in whichever process."""
        one, other = await open_backend(), await open_backend()
        for priority in (Priority.HIGH, Priority.LOW, Priority.NORMAL, Priority.LOW) * 3:
            await submit(one, priority.value, priority=priority)
        found = [(await pull_one(backend)).task.prompt for backend in (one, other) * 6]
        assert found == ["high"] * 3 + ["normal"] * 3 + ["low"] * 6

    async def test_a_pull_takes_no_more_than_its_limit(self, open_backend: OpenBackend) -> None:
        """What is beyond the limit stays for others."""
        one, other = await open_backend(), await open_backend()
        await one.queue.submit_many([Task(prompt=str(number)) for number in range(5)])
        first = await one.queue.pull(2, PATIENCE_S)
        assert 1 <= len(first) <= 2
        rest = await pull_some(other, 5 - len(first))
        assert sorted(delivery.task.prompt for delivery in (*first, *rest)) == list("01234")

    async def test_every_task_has_one_owner(self, open_backend: OpenBackend) -> None:
        """Workers that pull at the same time share the tasks: each goes to one of them."""
        workers = [await open_backend() for _ in range(4)]
        ids = await workers[0].queue.submit_many([Task(prompt=str(number)) for number in range(40)])

        async def drain(position: int) -> list[str]:
            found: list[str] = []
            while deliveries := await workers[position].queue.pull(3, 0):
                found += [delivery.task.id for delivery in deliveries]
            return found

        shares = await asyncio.gather(*(drain(position) for position in range(4)))
        assert sorted(task_id for share in shares for task_id in share) == sorted(ids)

    async def test_an_empty_queue_gives_nothing(self, open_backend: OpenBackend) -> None:
        """A pull that finds nothing comes back empty when its time is over."""
        backend = await open_backend()
        await pull_nothing(backend)
        await pull_nothing(backend, 0.1)

    async def test_a_waiting_pull_gets_what_is_submitted(self, open_backend: OpenBackend) -> None:
        """A pull that waits is woken by a submit of another process, whatever the priority."""
        engine, worker = await open_backend(), await open_backend()
        for priority in Priority:
            async with background(worker.queue.pull(1, PATIENCE_S)) as pulled:
                await asyncio.sleep(0)
                task_id = await submit(engine, priority=priority)
                assert [delivery.task.id for delivery in await within(pulled)] == [task_id]

    async def test_a_cancelled_pull_loses_nothing(self, open_backend: OpenBackend) -> None:
        """Whoever stops waiting leaves the queue as it was: the next pull gets the next task."""
        backend = await open_backend()
        async with background(backend.queue.pull(1, PATIENCE_S)):
            await asyncio.sleep(0.05)  # lets the pull begin; it may not have, and then the test proves less
        task_id = await submit(backend)
        assert (await pull_one(backend)).task.id == task_id

    @needs(Capability.DELAYED)
    async def test_run_at_in_the_future(self, open_backend: OpenBackend) -> None:
        """A scheduled task waits for its moment, and says when that is."""
        backend = await open_backend()
        due_at = time.time() + 3600
        task_id = await backend.queue.submit(Task(prompt="later"), run_at=due_at)
        await pull_nothing(backend)
        (status,) = await backend.queue.status([task_id])
        assert status.state is TaskState.DELAYED
        assert status.due_at == pytest.approx(due_at, abs=0.01)

    @needs(Capability.DELAYED)
    async def test_run_at_comes(self, open_backend: OpenBackend) -> None:
        """When its moment comes, a scheduled task is delivered under the id it was given, before later ones."""
        backend = await open_backend()
        later, sooner = await asyncio.gather(
            backend.queue.submit(Task(prompt="b"), run_at=time.time() + 0.4),
            backend.queue.submit(Task(prompt="a"), run_at=time.time() + 0.2),
        )
        found = [delivery.task.id for delivery in await pull_some(backend, 2)]
        assert set(found) == {sooner, later}
        if Capability.ORDER not in backend.gaps:
            assert found == [sooner, later]

    async def test_run_at_in_the_past(self, open_backend: OpenBackend) -> None:
        """A moment that has passed means at once."""
        backend = await open_backend()
        ids = await backend.queue.submit_many([Task(prompt="a"), Task(prompt="b")], run_at=time.time() - 10)
        assert {delivery.task.id for delivery in await pull_some(backend, 2)} == set(ids)

    async def test_a_bad_task_is_refused(self, open_backend: OpenBackend) -> None:
        """What no worker could run raises InvalidTask, and of several tasks none is added then."""
        backend = await open_backend(BackendOptions(max_prompt_bytes=10))
        for name, bad in _REFUSED.items():
            with pytest.raises(InvalidTask, match=name):
                await backend.queue.submit_many([Task(prompt="good"), bad])
        with pytest.raises(InvalidTask, match="run_at"):
            await backend.queue.submit(Task(prompt="good"), run_at=float("inf"))
        await pull_nothing(backend)

    @needs(Capability.IDEMPOTENCY)
    async def test_the_same_key_is_the_same_task(self, open_backend: OpenBackend) -> None:
        """A second submit with an idempotency key adds nothing and returns the first one's id, running or ended."""
        one, other = await open_backend(), await open_backend()
        first = await submit(one, "first", idempotency_key="k")
        assert await submit(other, "second", idempotency_key="k") == first
        delivery = await pull_one(one)
        assert await submit(other, idempotency_key="k") == first
        await one.queue.ack(delivery, done(delivery))
        assert await submit(other, idempotency_key="k", priority=Priority.HIGH) == first
        await pull_nothing(other)
        assert await submit(other, idempotency_key="another") != first

    @needs(Capability.IDEMPOTENCY)
    async def test_the_same_key_twice_in_one_call(self, open_backend: OpenBackend) -> None:
        """The key counts inside one call too."""
        backend = await open_backend()
        task = Task(prompt="x", idempotency_key="k")
        first, other, again = await backend.queue.submit_many([task, Task(prompt="y"), task])
        assert first == again
        assert {delivery.task.id for delivery in await pull_some(backend, 2)} == {first, other}
        await pull_nothing(backend)

    @needs(Capability.IDEMPOTENCY)
    async def test_the_same_key_at_the_same_time(self, open_backend: OpenBackend) -> None:
        """Of many processes that submit a key at once, one adds the task and all get its id."""
        backends = [await open_backend() for _ in range(4)]
        ids = await asyncio.gather(*(submit(backends[n % 4], str(n), idempotency_key="k") for n in range(40)))
        assert len(set(ids)) == 1
        assert (await pull_one(backends[0])).task.id == ids[0]
        await pull_nothing(backends[1])

    @needs(Capability.IDEMPOTENCY)
    async def test_a_key_is_forgotten_in_time(self, open_backend: OpenBackend) -> None:
        """After `idempotency_retention_s` the key makes a new task."""
        backend = await open_backend(BackendOptions(idempotency_retention_s=0.2))
        first = await submit(backend, idempotency_key="k")

        async def is_new() -> bool:
            return await submit(backend, idempotency_key="k") != first

        await eventually(is_new)

    @needs(Capability.MAX_DEPTH)
    async def test_of_many_callers_at_once_as_many_succeed_as_there_is_room(self, open_backend: OpenBackend) -> None:
        """Each caller learns for itself whether its own task was accepted; none is refused for another's sake."""
        backend = await open_backend(BackendOptions(max_depth=3))
        tasks = [Task(prompt=f"hello {number}") for number in range(8)]
        answers = await asyncio.gather(*map(backend.queue.submit, tasks), return_exceptions=True)
        assert sum(isinstance(answer, str) for answer in answers) == 3
        assert sum(isinstance(answer, QueueFull) for answer in answers) == 5
        assert (await backend.queue.stats()).ready == 3

    @needs(Capability.IDEMPOTENCY)
    async def test_a_known_task_is_no_addition_to_a_full_queue(self, open_backend: OpenBackend) -> None:
        """Submitting a key again gives its task's id, whether there is room or not."""
        backend = await open_backend(BackendOptions(max_depth=1))
        task = Task(prompt="hello", idempotency_key="once")
        assert await backend.queue.submit(task) == await backend.queue.submit(task)

    @needs(Capability.MAX_DEPTH)
    async def test_a_full_queue_refuses(self, open_backend: OpenBackend) -> None:
        """With `max_depth` reached, QueueFull is raised, nothing is added, and there is room again after a pull."""
        backend = await open_backend(BackendOptions(max_depth=3))
        await backend.queue.submit_many([Task(prompt="0"), Task(prompt="1")])
        with pytest.raises(QueueFull, match="3"):
            await backend.queue.submit_many([Task(prompt="2"), Task(prompt="3")])
        await backend.queue.submit(Task(prompt="2"), run_at=time.time() + 3600)
        with pytest.raises(QueueFull):
            await submit(backend)
        stats = await backend.queue.stats()
        assert (stats.ready, stats.delayed) == (2, 1)
        taken = await pull_one(backend)
        await submit(backend, "3")
        prompts = {delivery.task.prompt for delivery in (taken, *await pull_some(backend, 2))}
        assert prompts == {"0", "1", "3"}

    async def test_ping_answers(self, open_backend: OpenBackend) -> None:
        """A broker that works is one that answers."""
        backend = await open_backend()
        await within(backend.queue.ping())
