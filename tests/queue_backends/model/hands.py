"""Who takes part: two workers' processes on one queue, each listening for cancels, and the model beside them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition

from queue_backends import Backend, BackendOptions
from queue_backends.interfaces import Delivery, LogRecord
from queue_backends.messages import ChunkDraft, ChunkType, Priority, Task, TaskResult
from tests.queue_backends.model.queue_model import QueueModel
from tests.queue_backends.model.sites.site import Site

MAX_DEPTH = 8
OPTIONS = BackendOptions(lease_s=3600.0, max_depth=MAX_DEPTH)
PATIENCE_S = 20.0
HANDS = 2
LOG = "usage"
SUMS = "sums"

hands = st.integers(0, HANDS - 1)
some = st.integers(0, 2)
priorities = st.sampled_from(Priority)
data_draw = st.data()
has_deliveries = precondition(lambda self: self._deliveries)


class Hands(RuleBasedStateMachine):
    """The state of a history, and the small steps that its rules are made of."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._site = site
        self._backends: list[Backend] = [self._run(site.open(OPTIONS)) for _ in range(HANDS)]
        self._model = QueueModel(max_depth=MAX_DEPTH, gaps=self._backends[0].gaps)
        self._deliveries: list[tuple[int, Delivery]] = []
        """All that were ever made and whose hand still lives, with that hand."""
        self._values: dict[str, bytes] = {}
        self._limited = 0
        self._words = 0
        self._heard: Counter[tuple[int, str]] = Counter()
        """How often a hand was told of a task's cancel since it has the task: at its delivery, or later."""
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

    def _new_task(self, priority: Priority, key: str) -> Task:
        return Task(prompt=self._word(), priority=priority, idempotency_key=key, meta={"n": str(self._words)})

    def _texts(self, count: int) -> tuple[ChunkDraft, ...]:
        return tuple(
            ChunkDraft(type=ChunkType.CONTENT, content=self._word(), turn=number, attempt=1) for number in range(count)
        )

    def _records(self, data: st.DataObject) -> tuple[LogRecord, ...]:
        names = data.draw(st.lists(st.integers(0, 9), max_size=2))
        counters = {SUMS: {"calls": 1, "tokens": 10}}
        return tuple(LogRecord(log=LOG, id=f"r{n}", value=b"v%d" % n, keep_s=999, counters=counters) for n in names)

    def _result(self, delivery: Delivery, error: str = "") -> TaskResult:
        return TaskResult(task_id=delivery.task.id, output=self._word(), error=error, finished_at=time.time())

    def _listen(self, hand: int) -> asyncio.Task[None]:
        return self._runner.get_loop().create_task(self._hear(self._backends[hand]))

    async def _hear(self, backend: Backend) -> None:
        async for task_id in backend.queue.cancellations():
            assert task_id in self._model.tasks
            self._heard[self._backends.index(backend), task_id] += 1

    async def _until_heard(self, hand: int, task_id: str) -> None:
        while not self._heard[hand, task_id]:
            await asyncio.sleep(0.001)

    def _stop_listening(self, hand: int) -> None:
        self._listening[hand].cancel()
        self._run(asyncio.wait([self._listening[hand]]))
