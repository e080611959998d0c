"""What engines do: submit, cancel, wait for results."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from queue_backends import QueueFull, WaitTimeout
from queue_backends.messages import Priority, Task
from tests.queue_backends.model.hands import PATIENCE_S, data_draw, hands, priorities
from tests.queue_backends.model.task_model import Place
from tests.queue_backends.model.worker_rules import WorkerRules


class EngineRules(WorkerRules):
    """Engines, and the workers that their cancels reach."""

    @initialize(wanted=st.lists(priorities, min_size=1, max_size=5), hand=hands, limit=st.integers(0, 4))
    def begin(self, wanted: list[Priority], hand: int, limit: int) -> None:
        """Nothing is interesting without tasks, and little without running ones."""
        self._submit([self._new_task(priority, "") for priority in wanted], None)
        if limit:
            self.pull(hand, limit)

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
    def wake(self, data: st.DataObject) -> None:
        """Somebody wakes some tasks, and others that are not delayed."""
        delayed = [task.id for task in self._model.in_place(Place.DELAYED)]
        names = st.sampled_from([*delayed, *delayed, *self._model.tasks, "1-1", "no-such-task"])
        ids = data.draw(st.lists(names, min_size=1, max_size=3))
        for task_id, was_delayed in zip(ids, self._run(self._engine.queue.wake(ids)), strict=True):
            self._model.woken(task_id, was_delayed=was_delayed)

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
