"""The engine's side: submits, submits again, cancels, watches, and writes down what it was told."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

from queue_backends import Backend, BackendUnavailable, Task, open_backend
from tests.faults.brokers.broker import Foreigner
from tests.faults.mixture import Errand, Way
from tests.faults.stage import Stage
from tests.faults.submissions import Submission, View

PAUSE_S = 0.1
PATIENCE_S = 60.0
"""So long the engine repeats a request that cannot be delivered."""
MOST_WATCHED = 60
NOBODY = "nobody"
"""An agent that does not exist: no worker can run such a task."""

T = TypeVar("T")


class Workload:
    """Runs errands against one stage, at a steady pace."""

    def __init__(self, stage: Stage, errands: list[Errand], *, duration_s: float) -> None:
        self._stage = stage
        self._errands = errands
        self._duration_s = duration_s
        self._watching = asyncio.Semaphore(MOST_WATCHED)
        self.submissions: list[Submission] = []
        self.views: dict[str, View] = {}
        self.announced: Counter[str] = Counter()
        """How often each task's result was announced, as far as the listener was connected."""

    async def run(self) -> None:
        """Submit everything, and stay until every accepted task has a result and every consumer its last chunk."""
        opened = await _insisting(lambda: open_backend(self._stage.url, self._stage.options))
        foreigner = self._stage.broker.foreigner(self._stage.queue) or contextlib.nullcontext()
        async with opened as backend, foreigner as operator:
            listener = asyncio.create_task(self._listen(), name="result listener")
            try:
                await self._submit_all(backend, operator)
            finally:
                listener.cancel()
                await asyncio.wait([listener])

    async def _submit_all(self, backend: Backend, operator: Foreigner | None) -> None:
        start, pause_s = time.monotonic(), self._duration_s / len(self._errands)
        async with asyncio.TaskGroup() as group:
            for number, errand in enumerate(self._errands):
                await asyncio.sleep(start + number * pause_s - time.monotonic())
                submission = Submission(errand=errand)
                self.submissions.append(submission)
                group.create_task(self._run(backend, operator, submission), name=errand.plan.key)

    async def _run(self, backend: Backend, operator: Foreigner | None, submission: Submission) -> None:
        errand = submission.errand
        if errand.way is Way.CLIENT:
            await self._submit(backend, submission)
        elif operator is not None:
            await self._add_entry(operator, submission)
        else:
            await self._submit_once(backend, submission)
        async with asyncio.TaskGroup() as group:
            if errand.watched and submission.ids:
                group.create_task(self._watch(backend, submission.task_id))
            if errand.cancel_after_s is not None and submission.ids:
                await asyncio.sleep(errand.cancel_after_s)
                await self._cancel(backend, submission)

    async def _submit(self, backend: Backend, submission: Submission) -> None:
        errand = submission.errand
        task = Task(
            prompt=errand.plan.prompt,
            idempotency_key=errand.plan.key,
            priority=errand.priority,
            tenant=errand.tenant,
            meta={"key": errand.plan.key},
            deadline=time.time() + errand.deadline_s if errand.deadline_s else None,
            stream_key=list_name(self._stage.queue, errand.plan.key) if self._has_list(errand) else "",
        )
        run_at = time.time() + errand.delay_s if errand.delay_s else None
        for _ in range(errand.submits):
            _accepted(submission, await _insisting(lambda: backend.queue.submit(task, run_at=run_at)))

    async def _add_entry(self, operator: Foreigner, submission: Submission) -> None:
        errand = submission.errand
        fields = errand.fields or {b"prompt": errand.plan.prompt.encode(), b"key": errand.plan.key.encode()}
        task_id = await operator.add_entry(fields)
        if task_id is not None:
            _accepted(submission, task_id)

    async def _submit_once(self, backend: Backend, submission: Submission) -> None:
        """Where there is no other door: without an idempotency key, so that nobody may try again."""
        errand = submission.errand
        agent = NOBODY if errand.way is Way.GARBAGE else ""
        task = Task(prompt=errand.plan.prompt, agent=agent, meta={"key": errand.plan.key})
        with contextlib.suppress(BackendUnavailable):
            _accepted(submission, await backend.queue.submit(task))

    async def _cancel(self, backend: Backend, submission: Submission) -> None:
        submission.cancel_sent = True
        outcomes = await _insisting(lambda: backend.queue.cancel([submission.task_id]))
        submission.cancel = outcomes[0]

    async def _watch(self, backend: Backend, task_id: str) -> None:
        if self._watching.locked():
            return
        view = self.views[task_id] = View()
        async with self._watching:
            try:
                async with asyncio.timeout(3 * PATIENCE_S):
                    async for chunk in backend.chunks.subscribe(task_id):
                        view.chunks.append(chunk)
                view.ended = True
            except Exception as error:  # whatever a consumer is told is evidence
                view.problem = f"{type(error).__name__}: {error}"

    async def _listen(self) -> None:
        """Count announcements of results. What is announced while nobody listens is lost, so the count is a floor."""
        while (foreigner := self._stage.broker.foreigner(self._stage.queue)) is not None:
            async with foreigner as operator:
                async for task_id in operator.announcements():
                    self.announced[task_id] += 1
            await asyncio.sleep(PAUSE_S)

    def _has_list(self, errand: Errand) -> bool:
        return errand.has_list and self._stage.broker.has_lists


def _accepted(submission: Submission, task_id: str) -> None:
    submission.ids.append(task_id)
    submission.at = submission.at or time.time()


def list_name(queue: str, key: str) -> str:
    """Where the text of a task goes that has a list."""
    return f"{queue}:list:{key}"


async def _insisting(request: Callable[[], Awaitable[T]]) -> T:
    """Repeat a request that is safe to repeat, until it is answered."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await request()
        except BackendUnavailable:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(PAUSE_S)
