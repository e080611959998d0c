"""The engine's side: submits, submits again, cancels, watches, and writes down what it was told."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import redis.asyncio
import redis.exceptions
from msgspec import Struct
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from queue_backends import Backend, BackendUnavailable, CancelOutcome, Chunk, Task, open_backend
from tests.faults.mixture import Errand, Way
from tests.faults.stage import Stage

PAUSE_S = 0.1
PATIENCE_S = 60.0
"""So long the engine repeats a request that cannot be delivered."""
MOST_WATCHED = 60

T = TypeVar("T")


class Submission(Struct, kw_only=True):
    """An errand, and what became of it from the engine's point of view."""

    errand: Errand
    ids: list[str] = []
    """What each submit returned; none: nobody knows whether the task was accepted."""
    cancel: CancelOutcome | None = None
    """What the engine's cancel met."""
    cancel_sent: bool = False

    @property
    def task_id(self) -> str:
        """The task's id; empty if the engine was never told."""
        return self.ids[0] if self.ids else ""


class View(Struct, kw_only=True):
    """What a live consumer saw of one task."""

    chunks: list[Chunk] = []
    ended: bool = False
    problem: str = ""


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
        url = self._stage.clients.url(self._stage.queue)
        opened = await _insisting(lambda: open_backend(url, self._stage.options))
        async with opened as backend, self._direct() as direct:
            listener = asyncio.create_task(self._listen(), name="result listener")
            try:
                await self._submit_all(backend, direct)
            finally:
                listener.cancel()
                await asyncio.wait([listener])

    @contextlib.asynccontextmanager
    async def _direct(self) -> AsyncIterator[redis.asyncio.Redis]:
        # Without the driver's own retries: a bare XADD that is repeated after a lost reply is a second task.
        retry = Retry(NoBackoff(), 0)
        client = redis.asyncio.Redis(port=self._stage.server.port, socket_timeout=5, retry=retry)
        try:
            yield client
        finally:
            await client.aclose()

    async def _submit_all(self, backend: Backend, direct: redis.asyncio.Redis) -> None:
        start, pause_s = time.monotonic(), self._duration_s / len(self._errands)
        async with asyncio.TaskGroup() as group:
            for number, errand in enumerate(self._errands):
                await asyncio.sleep(start + number * pause_s - time.monotonic())
                submission = Submission(errand=errand)
                self.submissions.append(submission)
                group.create_task(self._run(backend, direct, submission), name=errand.plan.key)

    async def _run(self, backend: Backend, direct: redis.asyncio.Redis, submission: Submission) -> None:
        errand = submission.errand
        if errand.way is not Way.CLIENT:
            await self._add_entry(direct, submission)
        else:
            await self._submit(backend, submission)
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
            stream_key=list_name(self._stage.queue, errand.plan.key) if errand.has_list else "",
        )
        run_at = time.time() + errand.delay_s if errand.delay_s else None
        for _ in range(errand.submits):
            submission.ids.append(await _insisting(lambda: backend.queue.submit(task, run_at=run_at)))

    async def _add_entry(self, direct: redis.asyncio.Redis, submission: Submission) -> None:
        errand = submission.errand
        fields: Any = errand.fields or {b"prompt": errand.plan.prompt.encode(), b"key": errand.plan.key.encode()}
        with contextlib.suppress(redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            entry: Any = await direct.xadd(self._stage.queue, fields)
            submission.ids.append(entry.decode())

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
        prefix = f"{self._stage.queue}:done:"
        while True:
            with contextlib.suppress(redis.exceptions.RedisError):
                async with self._direct() as client, client.pubsub() as pubsub:
                    await pubsub.psubscribe(prefix + "*")
                    while True:
                        message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
                        if message is not None:
                            self.announced[message["channel"].decode().removeprefix(prefix)] += 1
            await asyncio.sleep(PAUSE_S)


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
