"""`TaskQueue` of `swarm.plugin.v1`: kubeswarm's agents work on one of our queues, of any engine.

Retries and dead letters are ours. The protocol has no renewal, so a task that was handed out keeps its lease for as
long as one attempt may take; if nobody has answered by then, somebody else gets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import structlog

from queue_backends import (
    RUN_CANCELLED,
    Ack,
    Backend,
    ChunkDraft,
    ChunkType,
    Dead,
    Delivery,
    LeaseLost,
    Outcome,
    QueueError,
    Retry,
    TaskResult,
    TokenUsage,
)
from queue_backends.swarm_plugin.messages import (
    AckRequest,
    CancelRequest,
    Empty,
    NackRequest,
    PluginTask,
    PollRequest,
    PollResponse,
    ResultsRequest,
    ResultsResponse,
    SubmitRequest,
    SubmitResponse,
)
from queue_backends.swarm_plugin.task_form import DELIVERY, task_of, to_result, to_task, usage_of
from worker.background import BackgroundWork
from worker.errors import WorkerError
from worker.retries import RetryPolicy

LONGEST_POLL_S = 60.0
_RENEWALS_PER_LEASE = 3

log = structlog.get_logger(__name__)


class _AgentFailed(WorkerError):
    """What an agent said of its failure."""


class _Held(NamedTuple):
    delivery: Delivery
    until: float
    """When its agent has had all the time that there is, by the monotonic clock."""


class QueueService:
    """One queue, for agents that poll. Use it inside `renewing`."""

    def __init__(self, backend: Backend, *, retries: RetryPolicy, lease_s: float, timeout_s: float) -> None:
        self._backend = backend
        self._retries = retries
        self._lease_s = lease_s
        self.timeout_s = timeout_s
        """So long an agent may take for one attempt."""
        self._held: dict[str, _Held] = {}
        self._ended: dict[str, float] = {}
        """Tasks that were cancelled while an agent had them, and until when its answer is expected."""

    # The six calls

    async def submit(self, request: SubmitRequest) -> SubmitResponse:
        """Queue a task. Raises a `QueueError`."""
        return SubmitResponse(task_id=await self._backend.queue.submit(task_of(request.prompt, request.meta)))

    async def poll(self, request: PollRequest) -> PollResponse:
        """Hand out one task. Raises a `QueueError`."""
        wait_s = min(max(request.timeout_ms, 0) / 1000, LONGEST_POLL_S)
        pulling = asyncio.create_task(self._backend.queue.pull(1, wait_s), name="pull for an agent")
        try:
            found = await asyncio.shield(pulling)
        except asyncio.CancelledError:
            await self._undo(pulling)
            raise
        if not found:
            return PollResponse()
        (delivery,) = found
        # A little longer than the agent's own limit, so that it can still say that the time was up.
        self._held[delivery.task.id] = _Held(delivery, time.monotonic() + self.timeout_s + self._lease_s)
        return PollResponse(task=to_task(delivery.task, delivery.token))

    async def _undo(self, pulling: asyncio.Task[list[Delivery]]) -> None:
        """The agent has gone away: what was pulled for it is given back."""
        pulling.cancel()
        await asyncio.wait([pulling])
        if not pulling.cancelled() and pulling.exception() is None:
            for delivery in pulling.result():
                with contextlib.suppress(QueueError):
                    await self._backend.queue.nack(delivery, "")

    async def ack(self, request: AckRequest) -> Empty:
        """A task has succeeded. Raises `LeaseLost`, or another `QueueError`."""
        delivery = self._delivery_of(request.task)
        if delivery is None:
            return Empty()
        usage = usage_of(request.input_tokens, request.output_tokens)
        result = TaskResult(task_id=delivery.task.id, output=request.result, usage=usage, finished_at=time.time())
        chunks = (ChunkDraft(type=ChunkType.CONTENT, content=request.result),) if request.result else ()
        await self._commit(Ack(delivery=delivery, result=result, chunks=(*chunks, _final(ChunkType.DONE, "", usage))))
        return Empty()

    async def nack(self, request: NackRequest) -> Empty:
        """A task has failed: it is tried again, or given up. Raises `LeaseLost`, or another `QueueError`."""
        delivery = self._delivery_of(request.task)
        if delivery is None:
            return Empty()
        failure = self._retries.decide(
            _AgentFailed(request.reason or "the agent gave no reason"), delivery.task.attempt
        )
        if failure.retry_in_s is not None:
            await self._commit(Retry(delivery=delivery, error=failure.error, retry_in_s=failure.retry_in_s))
            return Empty()
        result = TaskResult(task_id=delivery.task.id, error=failure.error, finished_at=time.time())
        final = _final(ChunkType.ERROR, failure.error, TokenUsage())
        await self._commit(Dead(delivery=delivery, result=result, chunks=(final,)))
        return Empty()

    async def results(self, request: ResultsRequest) -> ResultsResponse:
        """The results that there are. Raises a `QueueError`."""
        found = await self._backend.queue.results(request.task_ids)
        return ResultsResponse(results=tuple(to_result(result) for result in found if result is not None))

    async def cancel(self, request: CancelRequest) -> Empty:
        """End tasks, those that agents have, too. Raises a `QueueError`."""
        await self._backend.queue.cancel(request.task_ids)
        for task_id in request.task_ids:
            await self._cancelled(task_id)
        return Empty()

    # What goes on beside them

    @asynccontextmanager
    async def renewing(self) -> AsyncIterator[None]:
        """While entered, what agents have keeps its lease, and cancelled tasks end. Afterwards all is given back."""
        renewing = BackgroundWork(self._renew, name="leases of agents")
        hearing = BackgroundWork(self._hear_cancels, name="cancels for agents")
        try:
            async with renewing, hearing:
                yield
        finally:
            for held in list(self._held.values()):
                with contextlib.suppress(QueueError):
                    await self._backend.queue.nack(held.delivery, "")

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / _RENEWALS_PER_LEASE)
            now = time.monotonic()
            for task_id, held in list(self._held.items()):
                if held.until < now:
                    log.warning("an agent did not answer in time, its task goes to another", task=task_id)
                    del self._held[task_id]
            self._ended = {task_id: until for task_id, until in self._ended.items() if until > now}
            deliveries = [held.delivery for held in self._held.values()]
            try:
                lost = await self._backend.queue.renew(deliveries) if deliveries else []
            except QueueError as error:
                log.warning("leases of agents could not be renewed, trying again", error=str(error))
                continue
            for delivery in lost:
                self._held.pop(delivery.task.id, None)

    async def _hear_cancels(self) -> None:
        async for task_id in self._backend.queue.cancellations():
            try:
                await self._cancelled(task_id)
            except QueueError as error:
                log.warning("a cancelled task could not be ended", task=task_id, error=str(error))

    async def _cancelled(self, task_id: str) -> None:
        held = self._held.pop(task_id, None)
        if held is None:
            return
        self._ended[task_id] = held.until
        result = TaskResult(task_id=task_id, error=RUN_CANCELLED, finished_at=time.time())
        final = _final(ChunkType.ERROR, RUN_CANCELLED, TokenUsage())
        await self._backend.commit([Ack(delivery=held.delivery, result=result, chunks=(final,))])

    def _delivery_of(self, task: PluginTask | None) -> Delivery | None:
        """The delivery that an agent answers for; None if its task was cancelled. Raises `LeaseLost`."""
        task_id = task.id if task is not None else ""
        if self._ended.pop(task_id, None) is not None:
            return None
        held = self._held.get(task_id)
        token = task.meta.get(DELIVERY, "") if task is not None else ""
        if held is None or token not in ("", held.delivery.token):
            raise LeaseLost(
                f"task {task_id or '(without an id)'} is not in this agent's hands: it took too long, or ended"
            )
        return held.delivery

    async def _commit(self, outcome: Outcome) -> None:
        lost = await self._backend.commit([outcome])
        self._held.pop(outcome.delivery.task.id, None)
        if lost:
            raise LeaseLost(f"task {outcome.delivery.task.id} has gone to another")


def _final(kind: ChunkType, content: str, usage: TokenUsage) -> ChunkDraft:
    counted = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    known = {name: number for name, number in counted.items() if number is not None}
    return ChunkDraft(type=kind, content=content, metadata={"usage": known} if known else {}, is_final=True)
