"""How tasks end: results, retries, releases, dead letters."""
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
    finish_stream,
    needs,
    publish,
    pull_nothing,
    pull_one,
    pull_some,
    submit,
    text,
    within,
)
from queue_backends.errors import WaitTimeout
from queue_backends.interfaces import Backend, BackendOptions, Release, Retry, TaskState
from queue_backends.messages import DeadLetter, Priority, Task, TaskResult, TokenUsage


async def _bury(backend: Backend, error: str = "hopeless", **fields: str) -> DeadLetter:
    """Submit a task, give it up, and return its letter."""
    await submit(backend, **fields)
    await backend.queue.nack(await pull_one(backend), error, dead=True)
    return (await backend.queue.dead_letters(limit=1))[0]


class ResultConformance(Conformance):
    """Results, and waiting for them."""

    async def test_a_result_is_kept_whole(self, open_backend: OpenBackend) -> None:
        """Every field of a result can be read in another process, and the task is gone from the queue."""
        worker, engine = await open_backend(), await open_backend()
        task_id = await submit(engine)
        delivery = await pull_one(worker)
        result = TaskResult(
            task_id=task_id,
            output="Grüße 🌍 \x00",
            usage=TokenUsage(input_tokens=10, output_tokens=2, cache_read_tokens=3, reasoning_tokens=0),
            cost_usd=0.0125,
            finished_at=1775325495.5,
            artifacts={"report": "file:///tmp/a b"},
            structured={"a": [1, None, {"b": "ü"}]},
            stop_reason="end_turn",
            tool_calls=({"id": "call-1", "name": "search", "arguments": '{"for": "x"}'},),
        )
        await worker.queue.ack(delivery, result)
        assert await engine.queue.results([task_id]) == [result]
        await pull_nothing(engine)
        stats = await engine.queue.stats()
        assert (stats.ready, stats.running) == (0, 0)

    async def test_what_is_unknown_stays_unknown(self, open_backend: OpenBackend) -> None:
        """A usage or cost that was never known is not read as zero, and zero stays zero."""
        backend = await open_backend()
        ids = await backend.queue.submit_many([Task(prompt="a"), Task(prompt="b")])
        zero = TaskResult(task_id=ids[0], usage=TokenUsage(input_tokens=0, output_tokens=0), cost_usd=0.0)
        unknown = TaskResult(task_id=ids[1], error="broken")
        for delivery in await pull_some(backend, 2):
            await backend.queue.ack(delivery, zero if delivery.task.id == ids[0] else unknown)
        assert await backend.queue.results(ids) == [zero, unknown]

    async def test_results_come_in_the_order_asked(self, open_backend: OpenBackend) -> None:
        """One answer per id, None where there is none."""
        backend = await open_backend()
        ids = await backend.queue.submit_many([Task(prompt=str(number)) for number in range(3)])
        for delivery in await pull_some(backend, 3):
            if delivery.task.id != ids[1]:
                await backend.queue.ack(delivery, done(delivery, delivery.task.prompt))
        found = await backend.queue.results([ids[2], "no-such-task", ids[1], ids[0]])
        assert [result.output if result else None for result in found] == ["2", None, None, "0"]
        assert await backend.queue.results([]) == []

    async def test_results_are_forgotten_in_time(self, open_backend: OpenBackend) -> None:
        """After `result_retention_s`, in a queue that is in use, a result is gone and its task unknown."""
        backend = await open_backend(BackendOptions(result_retention_s=0.2))

        async def finish_one() -> str:
            task_id = await submit(backend)
            delivery = await pull_one(backend)
            await backend.queue.ack(delivery, done(delivery))
            return task_id

        old = await finish_one()

        async def is_gone() -> bool:
            await finish_one()
            return await backend.queue.results([old]) == [None]

        await eventually(is_gone)
        assert (await backend.queue.status([old]))[0].state is TaskState.UNKNOWN

    async def test_wait_for_an_ended_task(self, open_backend: OpenBackend) -> None:
        """A result that is there already comes at once."""
        backend, other = await open_backend(), await open_backend()
        task_id = await submit(backend)
        delivery = await pull_one(backend)
        await backend.queue.ack(delivery, done(delivery, "x"))
        assert (await other.queue.wait(task_id, PATIENCE_S)).output == "x"

    async def test_wait_for_one_that_will_end(self, open_backend: OpenBackend) -> None:
        """Whoever waits, in whichever process, is woken by the end, a failure included."""
        worker, engine = await open_backend(), await open_backend()
        task_id = await submit(engine)
        async with (
            background(engine.queue.wait(task_id, PATIENCE_S)) as one,
            background(engine.queue.wait(task_id, PATIENCE_S)) as two,
            background(worker.queue.wait(task_id, PATIENCE_S)) as three,
        ):
            delivery = await pull_one(worker)
            await worker.queue.nack(delivery, "broken", dead=True)
            for waiter in (one, two, three):
                result = await within(waiter)
                assert (result.task_id, result.error, result.ok) == (task_id, "broken", False)

    async def test_wait_while_it_ends(self, open_backend: OpenBackend) -> None:
        """No result is missed by waiting that begins in the moment of the end."""
        worker, engine = await open_backend(), await open_backend()
        ids = await engine.queue.submit_many([Task(prompt=str(number)) for number in range(20)])
        for delivery in await pull_some(worker, 20):
            result, _ = await asyncio.gather(
                engine.queue.wait(delivery.task.id, PATIENCE_S), worker.queue.ack(delivery, done(delivery))
            )
            assert result.output == "done"
        assert all(await engine.queue.results(ids))

    async def test_wait_gives_up(self, open_backend: OpenBackend) -> None:
        """WaitTimeout names the task; the task itself goes on."""
        backend = await open_backend()
        task_id = await submit(backend)
        with pytest.raises(WaitTimeout, match=task_id):
            await backend.queue.wait(task_id, 0.05)
        assert (await pull_one(backend)).task.id == task_id

    async def test_wait_goes_on_over_a_retry(self, open_backend: OpenBackend) -> None:
        """A failed attempt is not the end."""
        backend = await open_backend()
        task_id = await submit(backend)
        async with background(backend.queue.wait(task_id, PATIENCE_S)) as waiter:
            await backend.queue.nack(await pull_one(backend), "once", retry_in_s=0)
            delivery = await pull_one(backend)
            assert not waiter.done()
            await backend.queue.ack(delivery, done(delivery, "twice"))
            assert (await within(waiter)).output == "twice"


class RetryConformance(Conformance):
    """Tasks that are given back."""

    async def test_a_retry_without_delay(self, open_backend: OpenBackend) -> None:
        """It is ready at once: same task, attempt one higher, a new entry, no crash."""
        backend, other = await open_backend(), await open_backend()
        await submit(backend, meta={"ticket": "42"}, agent="writer")
        before = await pull_one(backend)
        await backend.queue.nack(before, "broken", retry_in_s=0)
        after = await pull_one(other)
        assert after.task.id == before.task.id
        assert after.task.attempt == 1
        assert (after.task.prompt, after.task.meta, after.task.agent) == ("hello", {"ticket": "42"}, "writer")
        assert after.task.enqueued_at == before.task.enqueued_at
        assert after.entry_id != before.entry_id
        assert after.redeliveries == 0
        assert not after.first
        assert await backend.queue.results([after.task.id]) == [None]

    @needs(Capability.DELAYED)
    async def test_a_retry_with_delay(self, open_backend: OpenBackend) -> None:
        """It is delayed until its time."""
        backend = await open_backend()
        task_id = await submit(backend)
        asked_at = time.time()
        await backend.queue.nack(await pull_one(backend), "broken", retry_in_s=3600)
        await pull_nothing(backend)
        (status,) = await backend.queue.status([task_id])
        assert status.state is TaskState.DELAYED
        assert status.due_at == pytest.approx(asked_at + 3600, abs=60)

    @needs(Capability.DELAYED)
    async def test_a_delayed_retry_comes(self, open_backend: OpenBackend) -> None:
        """When the delay is over, a waiting pull gets it, with its priority."""
        backend = await open_backend()
        task_id = await submit(backend, priority=Priority.LOW)
        await backend.queue.nack(await pull_one(backend), "broken", retry_in_s=0.2)
        delivery = await pull_one(backend)
        assert (delivery.task.id, delivery.task.attempt) == (task_id, 1)
        assert delivery.task.priority is Priority.LOW
        assert not delivery.first

    async def test_attempts_add_up(self, open_backend: OpenBackend) -> None:
        """`attempt` counts failures; a release in between does not."""
        backend = await open_backend()
        await submit(backend)
        attempts = []
        for retry_in_s in (0.0, None, 0.05, None):
            delivery = await pull_one(backend)
            attempts.append(delivery.task.attempt)
            await backend.queue.nack(delivery, "broken", retry_in_s=retry_in_s)
        assert attempts == [0, 1, 1, 2]
        assert (await pull_one(backend)).task.attempt == 2

    async def test_a_postponed_task_has_not_failed(self, open_backend: OpenBackend) -> None:
        """A retry that does not count: the task comes back as often as that is, with its `attempt`, and is not new."""
        backend, other = await open_backend(), await open_backend()
        task_id = await submit(backend, priority=Priority.HIGH)
        for number in range(4):
            worker = backend if number % 2 else other
            delivery = await pull_one(worker)
            assert (delivery.task.id, delivery.task.attempt, delivery.redeliveries) == (task_id, 0, 0)
            assert delivery.task.priority is Priority.HIGH
            assert number == 0 or not delivery.first
            retry = Retry(delivery=delivery, error="", retry_in_s=0.05 * number, next_attempt=number, counts=False)
            assert await worker.commit([retry]) == []
        delivery = await pull_one(backend)
        assert delivery.next_attempt == 3
        await backend.queue.nack(delivery, "", retry_in_s=0.05, counts=False)
        delivery = await pull_one(backend)
        assert delivery.task.attempt == 0
        await backend.queue.nack(delivery, "broken", retry_in_s=0)
        delivery = await pull_one(backend)
        await backend.queue.nack(delivery, "", retry_in_s=0, counts=False)
        assert (await pull_one(backend)).task.attempt == 1

    @needs(Capability.DELAYED)
    async def test_a_postponed_task_waits(self, open_backend: OpenBackend) -> None:
        """It is delayed until its time, for everyone to see."""
        backend = await open_backend()
        task_id = await submit(backend)
        delivery, asked_at = await pull_one(backend), time.time()
        assert await backend.commit([Retry(delivery=delivery, error="", retry_in_s=3600, counts=False)]) == []
        await pull_nothing(backend)
        (status,) = await backend.queue.status([task_id])
        assert status.state is TaskState.DELAYED
        assert status.due_at == pytest.approx(asked_at + 3600, abs=60)

    async def test_a_released_task_is_ready_at_once(self, open_backend: OpenBackend) -> None:
        """Another worker gets it; no attempt is counted, and it is no new task."""
        backend, other = await open_backend(), await open_backend()
        task_id = await submit(backend, "first")
        before = await pull_one(backend)
        await backend.queue.nack(before, "")
        after = await pull_one(other)
        assert (after.task.id, after.task.prompt, after.task.attempt) == (task_id, "first", 0)
        assert after.redeliveries == 0
        assert not after.first

    @needs(Capability.ORDER)
    async def test_a_released_task_goes_to_the_front(self, open_backend: OpenBackend) -> None:
        """It has waited longest: the next pull has it first, every time."""
        backend, other = await open_backend(), await open_backend()
        await backend.queue.submit_many([Task(prompt=str(number)) for number in range(13)])
        for number in range(12):
            released = await pull_one(backend)
            await backend.queue.nack(released, "")
            again = await pull_one(other)
            assert (again.task.id, again.task.prompt) == (released.task.id, str(number))

    async def test_next_attempt_comes_with_the_next_delivery(self, open_backend: OpenBackend) -> None:
        """The number that a run passes on is where its successor begins; it never falls."""
        backend = await open_backend()
        await submit(backend)
        delivery = await pull_one(backend)
        assert await backend.commit([Retry(delivery=delivery, error="x", next_attempt=4)]) == []
        delivery = await pull_one(backend)
        assert delivery.next_attempt == 4
        assert await backend.commit([Release(delivery=delivery, next_attempt=7)]) == []
        delivery = await pull_one(backend)
        assert delivery.next_attempt == 7
        assert await backend.commit([Retry(delivery=delivery, error="x", retry_in_s=0.05, next_attempt=9)]) == []
        delivery = await pull_one(backend)
        assert delivery.next_attempt == 9
        await backend.queue.nack(delivery, "x", retry_in_s=0, next_attempt=11)
        delivery = await pull_one(backend)
        assert delivery.next_attempt == 11
        await backend.queue.nack(delivery, "", next_attempt=12)
        delivery = await pull_one(backend)
        assert delivery.next_attempt == 12
        await backend.queue.nack(delivery, "")
        assert (await pull_one(backend)).next_attempt == 12


class DeadLetterConformance(Conformance):
    """Tasks that were given up."""

    @needs(Capability.DEAD_LETTERS)
    async def test_a_dead_task_leaves_letter_and_result(self, open_backend: OpenBackend) -> None:
        """Its error is in the letter and in the result; it is not delivered again."""
        backend, other = await open_backend(), await open_backend()
        before = time.time()
        task_id = await submit(backend, "poison")
        await backend.queue.nack(await pull_one(backend), "it bites", dead=True)
        (letter,) = await other.queue.dead_letters()
        assert (letter.task_id, letter.error, letter.prompt) == (task_id, "it bites", "poison")
        assert letter.id
        assert letter.dead_at == pytest.approx(before, abs=60)
        (result,) = await other.queue.results([task_id])
        assert result is not None
        assert result.error == "it bites"
        await pull_nothing(other)
        assert (await other.queue.stats()).dead == 1
        assert (await other.queue.status([task_id]))[0].state is TaskState.FAILED

    async def test_a_dead_task_may_have_a_whole_result(self, open_backend: OpenBackend) -> None:
        """With a result given, that is the task's: what it had used before it failed is not lost."""
        backend = await open_backend()
        task_id = await submit(backend)
        delivery = await pull_one(backend)
        usage = TokenUsage(input_tokens=7, output_tokens=1)
        result = TaskResult(task_id=task_id, error="it bites", output="half", usage=usage, finished_at=1.5)
        await backend.queue.nack(delivery, "it bites", dead=True, result=result)
        assert await backend.queue.results([task_id]) == [result]
        assert [letter.error for letter in await backend.queue.dead_letters()] == ["it bites"]

    @needs(Capability.DEAD_LETTERS)
    async def test_newest_letters_first(self, open_backend: OpenBackend) -> None:
        """Letters are listed newest first, up to the limit."""
        backend = await open_backend()
        for number in range(4):
            await _bury(backend, f"error {number}")
        assert [letter.error for letter in await backend.queue.dead_letters(limit=2)] == ["error 3", "error 2"]
        assert len(await backend.queue.dead_letters()) == 4

    @needs(Capability.DEAD_LETTERS)
    async def test_letters_are_capped(self, open_backend: OpenBackend) -> None:
        """Far beyond `dead_limit`, the oldest letters are gone and the newest there."""
        backend = await open_backend(BackendOptions(dead_limit=10))
        await backend.queue.submit_many([Task(prompt=str(number)) for number in range(400)])
        deliveries = await pull_some(backend, 400)
        for delivery in deliveries:
            await backend.queue.nack(delivery, delivery.task.prompt, dead=True)
        letters = await backend.queue.dead_letters(limit=500)
        assert 10 <= len(letters) < 400
        assert letters[0].error == deliveries[-1].task.prompt

    @needs(Capability.DEAD_LETTERS)
    async def test_a_requeued_task_is_fresh(self, open_backend: OpenBackend) -> None:
        """Same id, all its fields, attempt 0, no old result, and its chunks begin anew at 0."""
        backend, other = await open_backend(), await open_backend()
        task_id = await submit(backend, "again", meta={"ticket": "42"}, tenant="acme")
        delivery = await pull_one(backend)
        await backend.queue.nack(delivery, "once", retry_in_s=0)
        delivery = await pull_one(backend)
        await publish(backend, delivery, text("old"))
        await backend.queue.nack(delivery, "hopeless", dead=True)
        (letter,) = await other.queue.dead_letters()
        assert await other.queue.requeue([letter.id]) == [task_id]
        assert await other.queue.dead_letters() == []
        assert await other.queue.results([task_id]) == [None]
        assert (await other.queue.status([task_id]))[0].state is TaskState.READY
        fresh = await pull_one(backend)
        assert (fresh.task.id, fresh.task.attempt, fresh.redeliveries) == (task_id, 0, 0)
        assert (fresh.task.prompt, fresh.task.meta, fresh.task.tenant) == ("again", {"ticket": "42"}, "acme")
        assert not fresh.first
        await publish(backend, fresh, text("new"))
        chunks = await finish_stream(backend, fresh)
        assert [(chunk.seq, chunk.content) for chunk in chunks] == [(0, "new"), (1, "")]
        await backend.queue.ack(fresh, done(fresh))
        assert (await other.queue.wait(task_id, PATIENCE_S)).ok

    @needs(Capability.DEAD_LETTERS)
    async def test_a_letter_is_requeued_once(self, open_backend: OpenBackend) -> None:
        """Of operators who press the button at once, one brings the task back; unknown letters are passed over."""
        backend, other = await open_backend(), await open_backend()
        letter = await _bury(backend)
        found = await asyncio.gather(*(each.queue.requeue(["no-such", letter.id]) for each in (backend, other) * 3))
        assert [task_id for ids in found for task_id in ids] == [letter.task_id]
        await pull_one(backend)
        await pull_nothing(backend)

    @needs(Capability.DEAD_LETTERS)
    async def test_a_purged_letter_is_gone(self, open_backend: OpenBackend) -> None:
        """Purging deletes letters and counts those that were there."""
        backend = await open_backend()
        letters = [await _bury(backend) for _ in range(3)]
        assert await backend.queue.purge([letters[0].id, letters[2].id]) == 2
        assert await backend.queue.purge([letters[0].id]) == 0
        assert await backend.queue.purge([]) == 0
        assert await backend.queue.dead_letters() == [letters[1]]
        assert await backend.queue.requeue([letters[0].id]) == []
        await pull_nothing(backend)
