"""The whole machine: all rules, what must be so after each step, and how a history is brought to its end."""

from __future__ import annotations

from hypothesis.stateful import invariant

from queue_backends import Backend
from queue_backends.capabilities import Capability
from queue_backends.interfaces import Ack
from queue_backends.messages import ChunkDraft, ChunkType
from tests.queue_backends.model.hands import HANDS, LOG, SUMS
from tests.queue_backends.model.operator_rules import OperatorRules
from tests.queue_backends.model.task_model import Place


class QueueMachine(OperatorRules):
    """Workers, engines, operators and consumers of one queue, and the model that says what they must see."""

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
        records = [entry.id for entry in await backend.state.read_log(LOG)]
        if Capability.ORDER in backend.gaps:  # one call's outcomes are committed by several partitions at once
            assert sorted(records) == sorted(model.records)
        else:
            assert records == list(model.records)
        assert await backend.state.counters(SUMS) == model.counters
        assert {key: value async for key, value in backend.state.scan("")} == self._values

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
