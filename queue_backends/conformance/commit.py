"""`Backend.commit`: how runs end and how far they have come, under their fences."""
# ruff: noqa: S101 - tests speak in asserts

from __future__ import annotations

import pytest

from queue_backends.conformance.support import (
    FINAL,
    Conformance,
    OpenBackend,
    all_chunks,
    assert_numbered,
    background,
    contents,
    done,
    failed,
    finish_stream,
    publish,
    pull_nothing,
    pull_one,
    pull_some,
    submit,
    text,
    within,
)
from queue_backends.interfaces import (
    Ack,
    Backend,
    CancelOutcome,
    Checkpoint,
    Dead,
    LogRecord,
    Outcome,
    Release,
    Retry,
    Spent,
    TaskState,
)
from queue_backends.messages import RUN_CANCELLED, ChunkDraft, ChunkType, Task, TokenUsage


def _record(record_id: str, *, log: str = "usage", is_last: bool = False) -> LogRecord:
    counters = {"sums": {"calls": 1}}
    return LogRecord(log=log, id=record_id, value=record_id.encode(), keep_s=60, counters=counters, is_last=is_last)


async def _snapshot(backend: Backend, ids: list[str]) -> list[object]:
    """All that a commit could have changed."""
    stats = await backend.queue.stats()
    return [
        await backend.queue.results(ids),
        (stats.ready, stats.running, stats.delayed, stats.dead),
        await backend.queue.dead_letters(),
        await backend.state.read_log("usage"),
        await backend.state.counters("sums"),
    ]


class CommitConformance(Conformance):
    """Ends of runs, several at once, with all that belongs to them."""

    async def test_an_end_with_all_that_belongs_to_it(self, open_backend: OpenBackend) -> None:
        """Pending chunks, the final one, records, counters and result appear together; the stream goes on by number."""
        worker, engine = await open_backend(), await open_backend()
        task_id = await submit(engine)
        delivery = await pull_one(worker)
        await publish(worker, delivery, text("a"))
        ended = Ack(
            delivery=delivery,
            result=done(delivery, "ab"),
            chunks=(text("b"), FINAL),
            records=(_record("1"), _record("2")),
        )
        async with background(all_chunks(engine, task_id)) as stream:
            assert await worker.commit([ended]) == []
            chunks = await within(stream)
        assert_numbered(chunks)
        assert contents(chunks) == ["a", "b"]
        (result,) = await engine.queue.results([task_id])
        assert result == ended.result
        assert [entry.id for entry in await engine.state.read_log("usage")] == ["1", "2"]
        assert await engine.state.counters("sums") == {"calls": 2}

    async def test_the_last_record_of_a_log(self, open_backend: OpenBackend) -> None:
        """A log is read as any other, and can go on, when all that it has is a record that says it is the last."""
        worker, engine = await open_backend(), await open_backend()
        await submit(engine)
        delivery = await pull_one(worker)
        last = _record("1", log="journal", is_last=True)
        assert await worker.commit([Ack(delivery=delivery, result=done(delivery), records=(last,))]) == []
        page = await engine.state.read_on("journal")
        assert [(entry.id, entry.value) for entry in page.entries] == [("1", b"1")]
        assert await engine.state.read_log("journal", newest_first=True) == list(page.entries)
        assert await engine.state.append_once([last]) == 0
        assert await engine.state.append_once([_record("2", log="journal"), _record("1", log="journal")]) == 1
        assert [entry.id for entry in await engine.state.read_log("journal")] == ["1", "2"]
        assert [entry.id for entry in (await engine.state.read_on("journal", page.cursor)).entries] == ["2"]
        assert await engine.state.counters("sums") == {"calls": 2}
        await engine.state.delete_log("journal")

    async def test_every_kind_in_one_call(self, open_backend: OpenBackend) -> None:
        """Outcomes of all kinds go together, each to its own end."""
        worker, engine = await open_backend(), await open_backend()
        await engine.queue.submit_many([Task(prompt=name) for name in ("ack", "retry", "later", "dead", "release")])
        ack, retry, later, dead, release = await pull_some(worker, 5)
        error = ChunkDraft(type=ChunkType.ERROR, content="broken", is_final=True)
        outcomes: list[Outcome] = [
            Ack(delivery=ack, result=done(ack), chunks=(FINAL,), records=(_record("a"),)),
            Retry(delivery=retry, error="x", chunks=(text("r"),), records=(_record("r"),)),
            Retry(delivery=later, error="x", retry_in_s=3600, records=(_record("l"),)),
            Dead(delivery=dead, result=failed(dead, "broken"), chunks=(error,), records=(_record("d"),)),
            Release(delivery=release, chunks=(text("s"),), records=(_record("s"),)),
        ]
        assert await worker.commit(outcomes) == []
        ids = [each.task.id for each in (ack, retry, later, dead, release)]
        states = [status.state for status in await engine.queue.status(ids)]
        assert states == [TaskState.SUCCEEDED, TaskState.READY, TaskState.DELAYED, TaskState.FAILED, TaskState.READY]
        assert [letter.task_id for letter in await engine.queue.dead_letters()] == [dead.task.id]
        assert {entry.id for entry in await engine.state.read_log("usage")} == set("arlds")
        assert await engine.state.counters("sums") == {"calls": 5}
        assert [chunk.content for chunk in await all_chunks(engine, dead.task.id)] == ["broken"]
        for delivery in await pull_some(worker, 2):
            expected = {release.task.id: "s", retry.task.id: "r"}[delivery.task.id]
            assert contents(await finish_stream(worker, delivery)) == [expected]
        await pull_nothing(worker)

    async def test_one_lost_among_good_ones(self, open_backend: OpenBackend) -> None:
        """A lost lease stops its own outcome and no other."""
        backend = await open_backend()
        await backend.queue.submit_many([Task(prompt=str(number)) for number in range(3)])
        deliveries = await pull_some(backend, 3)
        ids = [delivery.task.id for delivery in deliveries]
        await backend.queue.ack(deliveries[1], done(deliveries[1], "before"))
        outcomes = [
            Ack(delivery=each, result=done(each, "now"), chunks=(FINAL,), records=(_record(each.task.id),))
            for each in deliveries
        ]
        assert await backend.commit(outcomes) == [outcomes[1]]
        results = await backend.queue.results(ids)
        assert [result.output if result else None for result in results] == ["now", "before", "now"]
        assert {entry.id for entry in await backend.state.read_log("usage")} == {ids[0], ids[2]}
        assert await backend.state.counters("sums") == {"calls": 2}

    async def test_the_same_commit_again_changes_nothing(self, open_backend: OpenBackend) -> None:
        """After an unknown outcome the caller repeats its commit; what was done stays done, once."""
        backend = await open_backend()
        await backend.queue.submit_many([Task(prompt=str(number)) for number in range(4)])
        ack, dead, retry, release = await pull_some(backend, 4)
        outcomes: list[Outcome] = [
            Ack(delivery=ack, result=done(ack), chunks=(text("x"), FINAL), records=(_record("a"),)),
            Dead(delivery=dead, result=failed(dead, "broken"), chunks=(FINAL,), records=(_record("d"),)),
            Retry(delivery=retry, error="x", chunks=(text("x"),), records=(_record("r"),)),
            Release(delivery=release, chunks=(text("x"),), records=(_record("s"),)),
        ]
        assert await backend.commit(outcomes) == []
        ids = [each.task.id for each in (ack, dead, retry, release)]
        before = await _snapshot(backend, ids)
        await backend.commit(outcomes)
        assert await _snapshot(backend, ids) == before
        assert contents(await all_chunks(backend, ack.task.id)) == ["x"]
        for delivery in await pull_some(backend, 2):
            chunks = await finish_stream(backend, delivery)
            assert_numbered(chunks)
            assert contents(chunks) == ["x"]

    async def test_a_record_that_is_known_counts_once(self, open_backend: OpenBackend) -> None:
        """A record that an earlier delivery has written is not counted again by the end."""
        backend = await open_backend()
        await submit(backend)
        delivery = await pull_one(backend)
        assert await backend.commit([Checkpoint(delivery=delivery, records=(_record("1"),))]) == []
        assert await backend.commit([Checkpoint(delivery=delivery, records=(_record("1"), _record("2")))]) == []
        ended = Ack(delivery=delivery, result=done(delivery), records=(_record("2"), _record("3")))
        assert await backend.commit([ended]) == []
        assert [entry.id for entry in await backend.state.read_log("usage")] == ["1", "2", "3"]
        assert await backend.state.counters("sums") == {"calls": 3}

    async def test_a_checkpoint_stores_and_the_run_goes_on(self, open_backend: OpenBackend) -> None:
        """Chunks and records of a run on its way appear together, numbered on; the task stays its worker's."""
        worker, engine = await open_backend(), await open_backend()
        task_id = await submit(engine)
        delivery = await pull_one(worker)
        await publish(worker, delivery, text("a"))
        step = Checkpoint(delivery=delivery, chunks=(text("b"), text("c")), records=(_record("1"),))
        assert await worker.commit([step]) == []
        assert [entry.id for entry in await engine.state.read_log("usage")] == ["1"]
        assert (await engine.queue.status([task_id]))[0].state is TaskState.RUNNING
        assert await worker.queue.renew([delivery]) == []
        await publish(worker, delivery, text("d"))
        chunks = await finish_stream(worker, delivery)
        assert_numbered(chunks)
        assert contents(chunks) == ["a", "b", "c", "d"]

    async def test_a_checkpoint_of_a_lost_lease_writes_nothing(self, open_backend: OpenBackend) -> None:
        """Neither chunks nor records of a run that is somebody else's, and its neighbours' are written all the same."""
        backend = await open_backend()
        await backend.queue.submit_many([Task(prompt="one"), Task(prompt="other")])
        gone, held = await pull_some(backend, 2)
        await backend.queue.nack(gone, "")
        steps = [
            Checkpoint(delivery=each, chunks=(text("x"),), records=(_record(name),))
            for name, each in (("gone", gone), ("held", held))
        ]
        assert await backend.commit(steps) == [steps[0]]
        assert [entry.id for entry in await backend.state.read_log("usage")] == ["held"]
        again = await pull_one(backend)
        assert again.task.id == gone.task.id
        assert contents(await finish_stream(backend, again)) == []
        assert contents(await finish_stream(backend, held)) == ["x"]

    async def test_records_alone_do_not_disturb_the_numbers(self, open_backend: OpenBackend) -> None:
        """Whoever takes a task over stores a record first, and then writes chunks that go on by number."""
        worker, follower = await open_backend(), await open_backend()
        await submit(worker)
        delivery = await pull_one(worker)
        await publish(worker, delivery, text("a"))
        await worker.queue.nack(delivery, "")
        again = await pull_one(follower)
        assert await follower.commit([Checkpoint(delivery=again, records=(_record("1"),))]) == []
        await publish(follower, again, text("b"))
        chunks = await finish_stream(follower, again)
        assert_numbered(chunks)
        assert contents(chunks) == ["a", "b"]

    @pytest.mark.parametrize("waits", [0.0, 60.0], ids=["ready", "delayed"])
    async def test_a_task_that_is_cancelled_while_it_waits_tells_what_it_had_used(
        self, open_backend: OpenBackend, waits: float
    ) -> None:
        """Earlier attempts were paid for, though no run ever ended the task; and a hand-back changes nothing of it."""
        backend = await open_backend()
        task_id = await submit(backend)
        spent = Spent(usage=TokenUsage(input_tokens=1000, output_tokens=7, cache_read_tokens=3), cost_usd=0.0125)
        failed_once = Retry(delivery=await pull_one(backend), error="busy", next_attempt=1, spent=spent)
        assert await backend.commit([failed_once]) == []
        again = Retry(delivery=await pull_one(backend), error="busy", next_attempt=2, retry_in_s=waits)
        assert await backend.commit([again]) == []
        assert await backend.queue.cancel([task_id]) == [CancelOutcome.CANCELLED]
        (result,) = await backend.queue.results([task_id])
        assert result is not None
        assert (result.error, result.usage, result.cost_usd) == (RUN_CANCELLED, spent.usage, spent.cost_usd)

    async def test_a_cancelled_task_that_is_given_back_tells_what_it_had_used(self, open_backend: OpenBackend) -> None:
        """Its worker leaves before it has heard of the cancel."""
        backend = await open_backend()
        task_id = await submit(backend)
        delivery = await pull_one(backend)
        assert await backend.queue.cancel([task_id]) == [CancelOutcome.REQUESTED]
        spent = Spent(usage=TokenUsage(input_tokens=10, output_tokens=1))
        assert await backend.commit([Release(delivery=delivery, next_attempt=1, spent=spent)]) == []
        (result,) = await backend.queue.results([task_id])
        assert result is not None
        assert (result.error, result.usage, result.cost_usd) == (RUN_CANCELLED, spent.usage, None)

    async def test_a_requeued_task_numbers_its_attempts_on(self, open_backend: OpenBackend) -> None:
        """What was spent before a task died stays counted, because its model calls get new numbers."""
        backend = await open_backend()
        await submit(backend)
        delivery = await pull_one(backend)
        dead = Dead(delivery=delivery, result=failed(delivery, "broken"), next_attempt=3, chunks=(FINAL,))
        assert await backend.commit([dead]) == []
        (letter,) = await backend.queue.dead_letters()
        assert await backend.queue.requeue([letter.id]) == [delivery.task.id]
        again = await pull_one(backend)
        assert (again.task.attempt, again.next_attempt, again.first) == (0, 3, False)

    async def test_a_result_with_an_error_is_an_end(self, open_backend: OpenBackend) -> None:
        """An Ack may carry a failure: the task has failed, and there is no dead letter."""
        backend = await open_backend()
        task_id = await submit(backend)
        delivery = await pull_one(backend)
        assert await backend.commit([Ack(delivery=delivery, result=failed(delivery, "deadline passed"))]) == []
        assert (await backend.queue.status([task_id]))[0].state is TaskState.FAILED
        assert await backend.queue.dead_letters() == []

    async def test_many_ends_at_once(self, open_backend: OpenBackend) -> None:
        """Hundreds of runs end in one call."""
        backend = await open_backend()
        ids = await backend.queue.submit_many([Task(prompt=str(number)) for number in range(600)])
        deliveries = await pull_some(backend, 600)
        outcomes = [
            Ack(delivery=each, result=done(each, each.task.prompt), chunks=(FINAL,), records=(_record(each.task.id),))
            for each in deliveries
        ]
        assert await backend.commit(outcomes) == []
        results = await backend.queue.results(ids)
        assert [result.output if result else None for result in results] == [str(number) for number in range(600)]
        assert await backend.state.counters("sums") == {"calls": 600}

    async def test_nothing_to_commit(self, open_backend: OpenBackend) -> None:
        """No outcomes in, no lost ones out."""
        backend = await open_backend()
        assert await backend.commit([]) == []
