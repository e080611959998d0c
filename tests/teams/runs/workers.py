"""Workers for tests of runs: they pull real tasks from a real queue, and answer as a table says."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

from msgspec import Struct

from queue_backends import Ack, Backend, Delivery, LeaseLost, Task, TaskResult, TokenUsage

FAIL = "FAIL: "
"""An answer that begins so is an error."""


class Call(Struct, frozen=True):
    """Which model call a task is, as its idempotency key says."""

    run: str
    step: str
    iteration: int
    attempt: int
    purpose: str


def call_of(task: Task) -> Call:
    """The call that a task is."""
    _, run, step, iteration, attempt, purpose = task.idempotency_key.split(":")
    return Call(run, step, int(iteration), int(attempt), purpose)


Says = Callable[[Call, Task], str]


class Workers:
    """Answer every task at once, in any order. `ran` counts how often each key was really worked on."""

    def __init__(self, backend: Backend, says: Says, *, seed: int = 0) -> None:
        self._backend = backend
        self._says = says
        self._random = random.Random(seed)
        self.ran: Counter[str] = Counter()
        self.tasks: list[Task] = []
        self.ended: list[str] = []

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[Workers]:
        """Work until the body ends."""
        working = asyncio.create_task(self._work())
        try:
            yield self
        finally:
            working.cancel()
            await asyncio.wait([working])

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as runs:
            while True:
                for delivery in await self._backend.queue.pull(10, 0.2):
                    self.ran[delivery.task.idempotency_key] += 1
                    self.tasks.append(delivery.task)
                    runs.create_task(self._run(delivery))

    async def _run(self, delivery: Delivery) -> None:
        for _ in range(self._random.randrange(6)):
            await asyncio.sleep(0)
        said = self._says(call_of(delivery.task), delivery.task)
        is_error = said.startswith(FAIL)
        result = TaskResult(
            task_id=delivery.task.id,
            output="" if is_error else said,
            error=said if is_error else "",
            usage=TokenUsage(input_tokens=10, output_tokens=1),
            cost_usd=0.5,
            finished_at=time.time(),
        )
        self.ended.append(delivery.task.idempotency_key)
        with contextlib.suppress(LeaseLost):
            await self._backend.commit([Ack(delivery=delivery, result=result)])
