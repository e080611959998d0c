"""Every backend behaves as the model of a queue does, whatever its users do in whatever order.

In CI a fixed set of examples runs, the same each time. To explore with random ones, and for as long as you like:
`SHOAL_TEST_MODEL_EXAMPLES=3000 pytest --timeout 0 tests/queue_backends/test_queue_model.py -k valkey`.
A failure prints its shortest history.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from queue_backends import Backend, BackendOptions, LeaseLost, QueueFull, WaitTimeout
from queue_backends.conformance.support import iterating
from queue_backends.interfaces import (
    Ack,
    Checkpoint,
    ChunkBatch,
    Dead,
    Delivery,
    LogRecord,
    Outcome,
    Progress,
    Release,
    Retry,
)
from queue_backends.messages import Chunk, ChunkDraft, ChunkType, Priority, Task, TaskResult
from tests.queue_backends.queue_model import Fence, Place, QueueModel, key_of
from tests.queue_backends.queue_sites import MemorySite, RedisSite, Site
from tests.servers import PROGRAMS, Server

MAX_DEPTH = 8
OPTIONS = BackendOptions(lease_s=3600.0, max_depth=MAX_DEPTH)
PATIENCE_S = 20.0
REPLAY_PATIENCE_S = 2.0
"""A replay that comes to no end has gone wrong; this is how long it takes to say so."""
HANDS = 2
EXAMPLES = {"memory": 50, "composed": 15, "valkey": 25, "redis": 8, "redis-6.2": 8}
"""How many histories are tried in CI, by kind of backend."""
STEPS = 40
LOG = "usage"
SUMS = "sums"

hands = st.integers(0, HANDS - 1)
some = st.integers(0, 2)
priorities = st.sampled_from(Priority)
state_keys = st.sampled_from(["a", "b"])
state_values = st.sampled_from([b"", b"1", b"2"])
data_draw = st.data()


class QueueMachine(RuleBasedStateMachine):
    """Workers, engines, operators and consumers of one queue, and the model that says what they must see."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._site = site
        self._model = QueueModel(max_depth=MAX_DEPTH)
        self._backends: list[Backend] = [self._run(site.open(OPTIONS)) for _ in range(HANDS)]
        self._deliveries: list[tuple[int, Delivery]] = []
        """All that were ever made and whose hand still lives, with that hand."""
        self._values: dict[str, bytes] = {}
        self._limited = 0
        self._words = 0
        self._heard: set[tuple[int, str]] = set()
        """Cancels that a hand was told of since it has the task."""
        self._listening: list[asyncio.Task[None]] = [self._listen(hand) for hand in range(HANDS)]

    def _run(self, coroutine: Any) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(PATIENCE_S):
                return await coroutine

        return self._runner.run(bounded())

    def _word(self) -> str:
        self._words += 1
        return f"w{self._words}"

    @property
    def _engine(self) -> Backend:
        return self._backends[self._words % HANDS]

    # Engines

    @initialize(wanted=st.lists(priorities, min_size=1, max_size=5), hand=hands, limit=st.integers(0, 4))
    def begin(self, wanted: list[Priority], hand: int, limit: int) -> None:
        """Nothing is interesting without tasks, and little without running ones."""
        self._submit([self._new_task(priority, "") for priority in wanted], None)
        if limit:
            self.pull(hand, limit)

    def _new_task(self, priority: Priority, key: str) -> Task:
        return Task(prompt=self._word(), priority=priority, idempotency_key=key, meta={"n": str(self._words)})

    @rule(
        priority=priorities, key=st.sampled_from(["", "", "k1", "k2"]), run_in_s=st.sampled_from([None, None, -9, 999])
    )
    def submit(self, priority: Priority, key: str, run_in_s: float | None) -> None:
        """An engine submits a task: at once, for later, or for a moment that is over."""
        task = self._new_task(priority, key)
        self._submit([task], None if run_in_s is None else time.time() + run_in_s)

    @rule(wanted=st.lists(st.tuples(priorities, st.sampled_from(["", "k1", "k3"])), max_size=4))
    def submit_many(self, wanted: list[tuple[Priority, str]]) -> None:
        """An engine submits several at once."""
        self._submit([self._new_task(priority, key) for priority, key in wanted], None)

    def _submit(self, tasks: Sequence[Task], run_at: float | None) -> None:
        room = self._model.has_room(tasks)
        queue = self._engine.queue
        try:
            if len(tasks) == 1:
                ids = [self._run(queue.submit(tasks[0], run_at=run_at))]
            else:
                ids = self._run(queue.submit_many(tasks, run_at=run_at))
        except QueueFull:
            assert room is not True, "there was room"
            return
        assert room is not False, "the queue is fuller than it may be"
        assert len(ids) == len(tasks)
        for task, task_id in zip(tasks, ids, strict=True):
            self._model.submitted(
                task, task_id, delayed=run_at is not None, is_due=run_at is not None and run_at < time.time()
            )

    @precondition(lambda self: self._model.tasks)
    @rule(data=data_draw)
    def cancel(self, data: st.DataObject) -> None:
        """An engine cancels some tasks, unknown ones among them."""
        running = [task.id for task in self._model.in_place(Place.RUNNING)]
        names = st.sampled_from([*running, *self._model.tasks, "1-1", "no-such-task"])
        ids = data.draw(st.lists(names, min_size=1, max_size=2))
        for task_id, outcome in zip(ids, self._run(self._engine.queue.cancel(ids)), strict=True):
            self._model.cancelled(task_id, outcome)
        self._answer_cancels(data.draw(st.sampled_from(["", "renew", "release", "retry"])))

    def _answer_cancels(self, step: str) -> None:
        """Workers that hold a task which was asked to end renew it, or give it back, or take their time."""
        for hand, delivery in self._deliveries:
            asked = self._model.tasks[delivery.task.id].cancel_asked
            if asked and step == "renew":
                self._renew(hand, [delivery])
            elif asked and step:
                self._end_by(step, hand, delivery, 0)

    @precondition(lambda self: self._model.tasks)
    @rule(data=data_draw)
    def wait(self, data: st.DataObject) -> None:
        """Whoever waits has the result of an ended task, and no other."""
        task_id = data.draw(st.sampled_from(list(self._model.tasks)))
        try:
            result = self._run(self._engine.queue.wait(task_id, PATIENCE_S if self._has_ended(task_id) else 0.001))
        except WaitTimeout:
            result = None
        self._model.check_result(task_id, result)

    def _has_ended(self, task_id: str) -> bool:
        return self._model.tasks[task_id].place is Place.ENDED

    # Workers

    @rule(hand=hands, limit=st.integers(1, 4))
    def pull(self, hand: int, limit: int) -> None:
        """A worker asks for tasks."""
        backend = self._backends[hand]
        self._site.look_around(backend)
        deliveries = self._run(backend.queue.pull(limit, 0))
        self._model.pulled(deliveries, limit, own={key_of(held) for owner, held in self._deliveries if owner == hand})
        self._deliveries += [(hand, delivery) for delivery in deliveries]
        self._heard -= {(hand, delivery.task.id) for delivery in deliveries}

    def _draw_deliveries(self, data: st.DataObject, *, most: int = 3) -> tuple[int, list[Delivery]]:
        """Different deliveries of one hand: held ones mostly, lost ones too."""
        hand, first = data.draw(st.sampled_from(self._deliveries[::-1]))
        others = [delivery for owner, delivery in self._deliveries if owner == hand and delivery is not first]
        extra = data.draw(st.lists(st.sampled_from(others), max_size=most - 1, unique_by=key_of)) if others else []
        return hand, [first, *extra]

    has_deliveries = precondition(lambda self: self._deliveries)

    @has_deliveries
    @rule(data=data_draw)
    def renew(self, data: st.DataObject) -> None:
        """A worker renews leases; it hears of cancels by then."""
        self._renew(*self._draw_deliveries(data))

    def _renew(self, hand: int, deliveries: list[Delivery]) -> None:
        lost = self._run(self._backends[hand].queue.renew(deliveries))
        assert lost == [delivery for delivery in deliveries if delivery in lost], "not in input order"
        for delivery in deliveries:
            if self._model.answered(delivery, lost=delivery in lost):
                self._model.renewed(delivery)
                if self._model.tasks[delivery.task.id].cancel_asked:
                    self._run(self._until_heard(hand, delivery.task.id))

    @has_deliveries
    @rule(data=data_draw, count=some)
    def publish(self, data: st.DataObject, count: int) -> None:
        """A worker publishes chunks of several runs, of one run twice perhaps."""
        hand, deliveries = self._draw_deliveries(data)
        if data.draw(st.booleans()):
            deliveries.append(deliveries[0])
        batches = [ChunkBatch(delivery=delivery, chunks=self._texts(count)) for delivery in deliveries]
        lost = self._run(self._backends[hand].chunks.publish(batches))
        for batch in batches:
            if self._model.answered(batch.delivery, lost=batch.delivery in lost):
                self._model.published(batch.delivery, batch.chunks)

    def _texts(self, count: int) -> tuple[ChunkDraft, ...]:
        return tuple(
            ChunkDraft(type=ChunkType.CONTENT, content=self._word(), turn=number, attempt=1) for number in range(count)
        )

    def _records(self, data: st.DataObject) -> tuple[LogRecord, ...]:
        names = data.draw(st.lists(st.integers(0, 9), max_size=2))
        counters = {SUMS: {"calls": 1, "tokens": 10}}
        return tuple(LogRecord(log=LOG, id=f"r{n}", value=b"v%d" % n, keep_s=999, counters=counters) for n in names)

    @has_deliveries
    @rule(data=data_draw)
    def commit(self, data: st.DataObject) -> None:
        """A worker writes how far runs have come and how they ended, all in one call."""
        hand, deliveries = self._draw_deliveries(data)
        outcomes: list[Progress] = []
        for delivery in deliveries:
            if data.draw(st.booleans()):
                outcomes.append(
                    Checkpoint(delivery=delivery, chunks=self._texts(data.draw(some)), records=self._records(data))
                )
            if data.draw(st.integers(0, 3)):
                outcomes.append(self._outcome(delivery, data))
        lost = self._run(self._backends[hand].commit(outcomes))
        assert lost == [outcome for outcome in outcomes if outcome in lost], "not in input order"
        for outcome in outcomes:
            if self._model.answered(outcome.delivery, lost=outcome in lost):
                self._model.committed(outcome)

    def _outcome(self, delivery: Delivery, data: st.DataObject) -> Outcome:
        kind = data.draw(st.sampled_from([Ack, Dead, Retry, Release]))
        chunks, records = self._texts(data.draw(some)), self._records(data)
        next_attempt = data.draw(st.integers(0, 30))
        if kind is Ack:
            final = ChunkDraft(type=ChunkType.DONE, is_final=True)
            return Ack(delivery=delivery, result=self._result(delivery), chunks=(*chunks, final), records=records)
        if kind is Dead:
            result = self._result(delivery, error="hopeless")
            final = ChunkDraft(type=ChunkType.ERROR, content="hopeless", is_final=True)
            return Dead(
                delivery=delivery, result=result, next_attempt=next_attempt, chunks=(*chunks, final), records=records
            )
        if kind is Release:
            return Release(delivery=delivery, next_attempt=next_attempt, chunks=chunks, records=records)
        delay_s = data.draw(st.sampled_from([0.0, 3600.0]))
        return Retry(
            delivery=delivery, error="x", retry_in_s=delay_s, next_attempt=next_attempt, chunks=chunks, records=records
        )

    def _result(self, delivery: Delivery, error: str = "") -> TaskResult:
        return TaskResult(task_id=delivery.task.id, output=self._word(), error=error, finished_at=time.time())

    @has_deliveries
    @rule(data=data_draw, step=st.sampled_from(["ack", "dead", "retry", "later", "release"]))
    def single_step(self, data: st.DataObject, step: str) -> None:
        """A worker ends a run by the queue's own steps."""
        hand, (delivery,) = self._draw_deliveries(data, most=1)
        self._end_by(step, hand, delivery, data.draw(st.integers(0, 30)))

    def _end_by(self, step: str, hand: int, delivery: Delivery, next_attempt: int) -> None:
        queue = self._backends[hand].queue
        result = self._result(delivery, error="hopeless" if step == "dead" else "")
        outcome: Outcome
        if step == "ack":
            outcome, call = Ack(delivery=delivery, result=result), queue.ack(delivery, result)
        elif step == "dead":
            outcome = Dead(delivery=delivery, result=result)
            call = queue.nack(delivery, "hopeless", dead=True, result=result)
        elif step == "release":
            outcome = Release(delivery=delivery, next_attempt=next_attempt)
            call = queue.nack(delivery, "", next_attempt=next_attempt)
        else:
            delay_s = 3600.0 if step == "later" else 0.0
            outcome = Retry(delivery=delivery, error="x", retry_in_s=delay_s, next_attempt=next_attempt)
            call = queue.nack(delivery, "x", retry_in_s=delay_s, next_attempt=next_attempt)
        try:
            self._run(call)
        except LeaseLost:
            assert self._model.fence(delivery) is not Fence.HELD, "a lease that holds was called lost"
            return
        assert self._model.answered(delivery, lost=False)
        self._model.committed(outcome)

    @rule(hand=hands)
    def die(self, hand: int) -> None:
        """A worker goes, and another comes: what it held is left to the leases."""
        self._stop_listening(hand)
        self._run(self._backends[hand].close())
        self._deliveries = [(owner, delivery) for owner, delivery in self._deliveries if owner != hand]
        self._backends[hand] = self._run(self._site.open(OPTIONS))
        self._listening[hand] = self._listen(hand)

    # Time

    @precondition(lambda self: self._model.in_place(Place.RUNNING))
    @rule(data=data_draw, hand=st.none() | hands)
    def lapse(self, data: st.DataObject, hand: int | None) -> None:
        """A lease runs out; and somebody takes over, perhaps."""
        self._lapse(data.draw(st.sampled_from(sorted(task.id for task in self._model.in_place(Place.RUNNING)))))
        if hand is not None:
            self.pull(hand, 4)

    def _lapse(self, task_id: str) -> None:
        task = self._model.tasks[task_id]
        if task.is_late:
            return
        assert task.owner is not None
        entry_id, token = task.owner
        self._run(self._site.end_lease(Delivery(task=task.task, entry_id=entry_id, token=token)))
        task.is_late = True

    @precondition(lambda self: self._model.in_place(Place.DELAYED))
    @rule(data=data_draw)
    def fall_due(self, data: st.DataObject) -> None:
        """A delay ends."""
        self._fall_due(data.draw(st.sampled_from(sorted(task.id for task in self._model.in_place(Place.DELAYED)))))

    def _fall_due(self, task_id: str) -> None:
        if not self._model.tasks[task_id].is_late:
            self._run(self._site.end_delay(task_id))
            self._model.tasks[task_id].is_late = True

    # Operators

    @rule(hand=hands, for_long=st.integers(0, 3).map(lambda number: number == 0))
    def pause(self, hand: int, for_long: bool) -> None:
        """An operator pauses the queue: nobody gets anything. Mostly it is resumed soon."""
        self._pause(paused=True)
        self.pull(hand, 4)
        self._pause(paused=for_long)

    def _pause(self, *, paused: bool) -> None:
        self._run(self._engine.queue.pause() if paused else self._engine.queue.resume())
        self._model.paused = paused

    @precondition(lambda self: self._model.letters)
    @rule(data=data_draw, purge=st.integers(0, 3))
    def requeue_or_purge(self, data: st.DataObject, purge: int) -> None:
        """An operator brings letters back, or throws them away."""
        names = st.sampled_from([*self._model.letters, "1-1", "no-such-letter"])
        ids = data.draw(st.lists(names, min_size=1, max_size=3))
        known = [letter_id for letter_id in dict.fromkeys(ids) if letter_id in self._model.letters]
        if not purge:
            assert self._run(self._engine.queue.purge(ids)) == len(known)
            for letter_id in known:
                del self._model.letters[letter_id]
        else:
            brought_back = self._run(self._engine.queue.requeue(ids))
            assert brought_back == [self._model.requeued(letter_id) for letter_id in known]
            self.pull(purge % HANDS, 4)

    # Consumers

    @precondition(lambda self: self._model.tasks)
    @rule(data=data_draw, after_seq=st.integers(-1, 4))
    def replay(self, data: st.DataObject, after_seq: int) -> None:
        """A consumer reads a stream from some point on, up to its end or to what there is."""
        task_id = data.draw(st.sampled_from(list(self._model.tasks)))
        after_seq = min(after_seq, len(self._model.tasks[task_id].chunks) - 1)
        self._model.check_chunks(task_id, self._run(self._read(task_id, after_seq)), after_seq=after_seq)

    async def _read(self, task_id: str, after_seq: int) -> list[Chunk]:
        written = self._model.tasks[task_id].chunks[after_seq + 1 :]
        found: list[Chunk] = []
        if not written and not any(chunk.is_final for chunk in self._model.tasks[task_id].chunks):
            return found  # it would wait for more
        stream = self._engine.chunks.subscribe(task_id, after_seq=after_seq)
        async with iterating(stream):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPLAY_PATIENCE_S):
                    async for chunk in stream:
                        found.append(chunk)
                        if len(found) == len(written) and not chunk.is_final:
                            break
        return found

    # State

    @rule(data=data_draw, key=state_keys, value=st.none() | state_values, amount=st.integers(-3, 9))
    def use_state(self, data: st.DataObject, key: str, value: bytes | None, amount: int) -> None:
        """Somebody uses the state store, in one of its ways."""
        use = data.draw(st.sampled_from([self._append_once, self._set_or_delete, self._compare_and_set, self._add]))
        use(data, key, value, amount)

    def _append_once(self, data: st.DataObject, key: str, value: bytes | None, amount: int) -> None:
        records = self._records(data)
        assert self._run(self._engine.state.append_once(records)) == self._model.appended(records)

    def _set_or_delete(self, data: st.DataObject, key: str, value: bytes | None, amount: int) -> None:
        if value is None:
            assert self._run(self._engine.state.delete(key)) == (key in self._values)
        else:
            self._run(self._engine.state.set(key, value))
        self._keep(key, value)

    def _compare_and_set(self, data: st.DataObject, key: str, value: bytes | None, amount: int) -> None:
        expected = data.draw(st.none() | state_values)
        changed = self._run(self._engine.state.compare_and_set(key, expected, value))
        assert changed == (self._values.get(key) == expected)
        if changed:
            self._keep(key, value)

    def _keep(self, key: str, value: bytes | None) -> None:
        self._values.pop(key, None)
        if value is not None:
            self._values[key] = value

    def _add(self, data: st.DataObject, key: str, value: bytes | None, amount: int) -> None:
        limit = data.draw(st.none() | st.integers(0, 12))
        total = self._run(self._engine.state.add("limited", "n", amount, limit=limit))
        if limit is not None and self._limited + amount > limit:
            assert total is None
        else:
            self._limited += amount
            assert total == self._limited

    # What must be so after each step

    @invariant()
    def everybody_sees_the_same(self) -> None:
        """Every observer sees what the model has."""
        self._run(self._compare(self._engine))

    async def _compare(self, backend: Backend) -> None:
        model, ids = self._model, list(self._model.tasks)
        model.check_letters((await backend.queue.dead_letters())[::-1])
        for status in await backend.queue.status([*ids, "1-1"]):
            model.check_status(status)
        for task_id, result in zip(ids, await backend.queue.results(ids), strict=True):
            model.check_result(task_id, result)
        model.check_stats(await backend.queue.stats())
        listed = await backend.queue.list_tasks(limit=1000)
        assert sorted(status.id for status in listed) == sorted(ids)
        for status in listed:
            model.check_status(status)
        assert [entry.id for entry in await backend.state.read_log(LOG)] == list(model.records)
        assert await backend.state.counters(SUMS) == model.counters
        assert {key: value async for key, value in backend.state.scan("")} == self._values

    # Cancels that reach their worker

    def _listen(self, hand: int) -> asyncio.Task[None]:
        return self._runner.get_loop().create_task(self._hear(self._backends[hand]))

    async def _hear(self, backend: Backend) -> None:
        async for task_id in backend.queue.cancellations():
            assert task_id in self._model.tasks
            self._heard.add((self._backends.index(backend), task_id))

    async def _until_heard(self, hand: int, task_id: str) -> None:
        while (hand, task_id) not in self._heard:
            await asyncio.sleep(0.001)

    def _stop_listening(self, hand: int) -> None:
        self._listening[hand].cancel()
        self._run(asyncio.wait([self._listening[hand]]))

    # The end

    def teardown(self) -> None:
        """Everything that is left is brought to its end; then each task has one, and each stream too."""
        try:
            self._pause(paused=False)
            self._drain()
            self.everybody_sees_the_same()
            for task in self._model.tasks.values():
                assert task.place is Place.ENDED
                assert sum(chunk.is_final for chunk in task.chunks) <= 1
                self._model.check_chunks(task.id, self._run(self._read(task.id, -1)))
        finally:
            for hand in range(HANDS):
                self._stop_listening(hand)
                self._run(self._backends[hand].close())
            self._run(self._site.close())
            self._runner.close()

    def _drain(self) -> None:
        for task in self._model.in_place(Place.DELAYED):
            self._fall_due(task.id)
        for task in self._model.in_place(Place.RUNNING):
            self._lapse(task.id)
        self.die(0)  # a worker need not take over what it had itself
        while any(task.is_takeable for task in self._model.tasks.values()):
            count = len(self._deliveries)
            self.pull(0, 3)
            assert len(self._deliveries) > count
            final = ChunkDraft(type=ChunkType.DONE, is_final=True)
            outcomes = [
                Ack(delivery=delivery, result=self._result(delivery), chunks=(final,))
                for _, delivery in self._deliveries[count:]
            ]
            assert self._run(self._backends[0].commit(outcomes)) == []
            for outcome in outcomes:
                self._model.committed(outcome)


@pytest.fixture(scope="module", params=sorted(EXAMPLES))
def new_site(request: pytest.FixtureRequest) -> Iterator[tuple[str, Callable[[], Site]]]:
    """A kind of backend, and how a fresh queue of it comes to be."""
    kind: str = request.param
    if kind not in PROGRAMS:
        yield kind, lambda: MemorySite(composed=kind == "composed")
        return
    program = PROGRAMS[kind]()
    if program is None:
        pytest.skip(f"no {kind} on this machine")
    with Server(program) as server:
        yield kind, lambda: RedisSite(server)


def test_a_backend_behaves_as_the_model(new_site: tuple[str, Callable[[], Site]]) -> None:
    """Whatever is done in whatever order: the backend shows what the model shows, and nothing is lost or doubled."""
    kind, make_site = new_site
    explored = int(os.environ.get("SHOAL_TEST_MODEL_EXAMPLES", "0"))
    run_state_machine_as_test(
        cast("type[QueueMachine]", lambda: QueueMachine(make_site())),  # all it does with it is call it
        settings=settings(
            max_examples=explored or EXAMPLES[kind],
            stateful_step_count=STEPS,
            derandomize=not explored,
            database=None,
            deadline=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
