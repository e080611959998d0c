"""What workers do: pull, renew, publish, commit, end runs, die, and lose their leases."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from queue_backends import LeaseLost
from queue_backends.interfaces import Ack, Checkpoint, ChunkBatch, Dead, Delivery, Outcome, Progress, Release, Retry
from queue_backends.messages import ChunkDraft, ChunkType
from tests.queue_backends.model.hands import OPTIONS, Hands, data_draw, hands, has_deliveries, some
from tests.queue_backends.model.task_model import Fence, Place, key_of


class WorkerRules(Hands):
    """Workers, and time as far as it ends leases and delays."""

    @rule(hand=hands, limit=st.integers(1, 4))
    def pull(self, hand: int, limit: int) -> None:
        """A worker asks for tasks."""
        backend = self._backends[hand]
        self._site.look_around(backend)
        before = self._heard.copy()
        deliveries = self._run(backend.queue.pull(limit, 0))
        self._model.pulled(deliveries, limit, own={key_of(held) for owner, held in self._deliveries if owner == hand})
        self._deliveries += [(hand, delivery) for delivery in deliveries]
        for delivery in deliveries:
            self._heard[hand, delivery.task.id] -= before[hand, delivery.task.id]

    def _draw_deliveries(self, data: st.DataObject, *, most: int = 3) -> tuple[int, list[Delivery]]:
        """Different deliveries of one hand: held ones mostly, lost ones too."""
        hand, first = data.draw(st.sampled_from(self._deliveries[::-1]))
        others = [delivery for owner, delivery in self._deliveries if owner == hand and delivery is not first]
        extra = data.draw(st.lists(st.sampled_from(others), max_size=most - 1, unique_by=key_of)) if others else []
        return hand, [first, *extra]

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
            if not batch.chunks and batch.delivery not in lost:
                continue  # nothing was written, so that nobody needs to have looked at the fence
            if self._model.answered(batch.delivery, lost=batch.delivery in lost):
                self._model.published(batch.delivery, batch.chunks)

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
