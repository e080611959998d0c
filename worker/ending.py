"""How a run ended: result, last chunks and records, put together into the outcome that is committed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

import msgspec
import structlog

from providers import ToolCall
from queue_backends import (
    RUN_CANCELLED,
    Ack,
    Backend,
    ChunkDraft,
    ChunkType,
    Dead,
    Delivery,
    Outcome,
    Release,
    Retry,
    Spent,
    Task,
    TaskResult,
)
from queue_backends.messages import JsonObject, encode_json
from worker.errors import Postponed, WaitedTooLong
from worker.parking import Parking, next_look_s
from worker.recall import NO_PAST, Past
from worker.retries import Failure, RetryPolicy
from worker.sessions.conversation_run import ConversationRun
from worker.streaming import ChunkWriter
from worker.teams.child_tasks import ChildWork
from worker.turn_book import TurnBook

LONGEST_CALLS_CHARS = 1024 * 1024
"""Of JSON. Calls for the client that are longer stand in the result alone, not in the final chunk."""
_DONE = ChunkType.DONE  # as in `providers.tool_loop`
_NO_FILES: Mapping[str, str] = MappingProxyType({})

log = structlog.get_logger(__name__)


class Ending:
    """The last words of one run."""

    __slots__ = ("_chunks", "_delivery", "_retries", "_task_id", "artifacts", "book", "child", "conversation", "past")

    def __init__(self, delivery: Delivery, chunks: ChunkWriter, retries: RetryPolicy) -> None:
        self.book: TurnBook | None = None
        """The account of the run; None if it ended before it had one."""
        self.past: Past = NO_PAST
        """What earlier deliveries have left."""
        self.conversation: ConversationRun | None = None
        """What is kept of the run, if it takes part in a conversation."""
        self.child: ChildWork | None = None
        """If it is a delegated task: how its team's run hears of its end."""
        self.artifacts: Mapping[str, str] = _NO_FILES
        """Files that the task has made: name -> URL."""
        self._delivery = delivery
        self._task_id = delivery.task.id
        self._chunks = chunks
        self._retries = retries

    @property
    def spent(self) -> Spent:
        """What the task has used, over all its runs."""
        if self.book is not None:
            return Spent(usage=self.book.usage, cost_usd=self.book.cost_usd)
        return Spent(usage=self.past.resumption.used, cost_usd=self.past.cost_usd if self.past.has_entries else None)

    async def succeeded(self, output: str) -> Outcome:
        """There is an answer."""
        assert self.book is not None  # noqa: S101 - nothing succeeds without a provider
        book = self.book
        spent = Spent(usage=book.usage, cost_usd=book.cost_usd)
        result = TaskResult(
            task_id=self._task_id,
            output=output,
            usage=spent.usage,
            cost_usd=spent.cost_usd,
            finished_at=time.time(),
            structured=book.structured,
            stop_reason=book.stop_reason,
            tool_calls=tuple(map(_plain, book.tool_calls)) if book.tool_calls else (),
            artifacts=dict(self.artifacts) if self.artifacts else {},
        )
        said: dict[str, Any] = {"stop_reason": result.stop_reason}
        if result.tool_calls and len(encode_json(result.tool_calls)) <= LONGEST_CALLS_CHARS:
            said["tool_calls"] = result.tool_calls
        final = self._final(_DONE, "", spent, said)
        self._keep(output=output)
        return Ack(
            delivery=self._delivery,
            result=result,
            chunks=(*await self._chunks.finish(), final),
            records=self._chunks.take_records(),
        )

    async def failed(self, error: Exception) -> Outcome:
        """The attempt has failed: the task is tried again, or given up."""
        if isinstance(error, Postponed):
            return await self._postponed(error)
        task, failure = self._delivery.task, self._decide(error)
        if failure.retry_in_s is None:
            log.warning("task failed", task=task.id, error=failure.error, attempt=task.attempt)
            self._note("dead", failure.error)
            ending = await self._with_error(failure.error, error_type=type(error).__name__)
            return Dead(delivery=self._delivery, next_attempt=self._attempt_if_requeued(), **ending)
        log.warning("task will be tried again", task=task.id, error=failure.error, in_s=round(failure.retry_in_s, 2))
        self._note("retry", failure.error, failure.retry_in_s)
        return Retry(
            delivery=self._delivery,
            error=failure.error,
            retry_in_s=failure.retry_in_s,
            next_attempt=self._next_attempt(),
            spent=self.spent,
            chunks=await self._chunks.finish(),
            records=self._chunks.take_records(),
        )

    async def _postponed(self, error: Postponed) -> Outcome:
        """There is no room for the next model call: nothing has failed, and the slot is free for others."""
        task, now = self._delivery.task, time.time()
        since = self._waiting_since(now)
        wait = self._retries.postpone(error, waiting_since=since, now=now, deadline=task.deadline)
        if wait.retry_in_s is None:
            return await self.failed(WaitedTooLong(wait.error))
        if since == now:  # once, however often it comes back
            log.info("task is postponed", task=task.id, why=wait.error, in_s=round(wait.retry_in_s, 2))
        self._note("postponed", wait.error, wait.retry_in_s, since)
        return Retry(
            delivery=self._delivery,
            error=wait.error,
            retry_in_s=wait.retry_in_s,
            counts=False,
            next_attempt=self._next_attempt(),
            spent=self.spent,
            chunks=await self._chunks.finish(),
            records=self._chunks.take_records(),
        )

    async def parked(self, parking: Parking, backend: Backend) -> Outcome:
        """Its calls wait for something that may take long: nothing has failed, and the slot is free for others."""
        task, looks = self._delivery.task, self.past.looks
        retry_in_s = next_look_s(parking.waits, backend, looks=looks, deadline=task.deadline)
        if not looks:  # once, however often it looks in vain
            log.info("task is parked", task=task.id, waits_for=parking.reason)
        self._note("parked", parking.reason, retry_in_s)
        return Retry(
            delivery=self._delivery,
            error=parking.reason,
            retry_in_s=retry_in_s,
            counts=False,
            next_attempt=self._next_attempt(),
            spent=self.spent,
            chunks=await self._chunks.finish(),
            records=self._chunks.take_records(),
        )

    def _waiting_since(self, now: float) -> float:
        """When the wait for the next model call began: now, unless earlier deliveries waited for the same call."""
        past = self.past
        if self.book is not None and self.book.usage != past.resumption.used:
            return now
        if past.waiting_since is not None:
            return past.waiting_since
        if self._delivery.first or past.has_entries:
            return now
        return _enqueued_at(self._delivery.task) or now  # no journal is kept: all that is known

    async def cancelled(self) -> Outcome:
        """Somebody asked for the end."""
        self._note("cancelled")
        return Ack(delivery=self._delivery, **await self._with_error(RUN_CANCELLED))

    async def released(self) -> Outcome:
        """The worker is leaving: somebody else goes on."""
        self._note("released")
        return Release(
            delivery=self._delivery,
            next_attempt=self._next_attempt(),
            spent=self.spent,
            chunks=await self._chunks.finish(),
            records=self._chunks.take_records(),
        )

    def crashed(self, error: Exception) -> Outcome:
        """What is left to say when nothing else could be said: the bare error, as for any failed attempt."""
        failure = self._decide(error)
        if failure.retry_in_s is None:
            self._keep(error=failure.error)
        records = self._chunks.take_records()
        if failure.retry_in_s is not None:
            return Retry(
                delivery=self._delivery,
                error=failure.error,
                retry_in_s=failure.retry_in_s,
                next_attempt=self._next_attempt(),
                records=records,
            )
        result = TaskResult(task_id=self._task_id, error=failure.error, finished_at=time.time())
        final = self._final(ChunkType.ERROR, failure.error, self.spent, {})
        return Dead(
            delivery=self._delivery,
            next_attempt=self._attempt_if_requeued(),
            result=result,
            chunks=(final,),
            records=records,
        )

    def _keep(self, *, output: str = "", error: str = "", error_type: str = "") -> None:
        """The task has ended: what was said goes into its conversation, or its team's run, in the same step as the
        result."""
        if self.child is not None:
            self._chunks.note(self.child.ended(output=output, error=error, spent=self.spent))
        if self.conversation is not None:
            records = self.conversation.records(
                output=output, error=error, error_type=error_type, past=self.past, spent=self.spent
            )
            self._chunks.note(*records)

    def _decide(self, error: Exception) -> Failure:
        return self._retries.decide(error, self._delivery.task.attempt)

    def _note(self, how: str, error: str = "", retry_in_s: float | None = None, since: float | None = None) -> None:
        if self.book is not None:
            self.book.attempt_ended(how, error, retry_in_s, since)

    def _next_attempt(self) -> int:
        return self.book.next_attempt if self.book else self._delivery.next_attempt

    def _attempt_if_requeued(self) -> int:
        """Another one in any case, also after an end before the first turn: records are told apart by it."""
        return max(self._next_attempt(), self._delivery.next_attempt + 1)

    async def _with_error(self, error: str, **said: str) -> dict[str, Any]:
        spent = self.spent
        result = TaskResult(
            task_id=self._task_id,
            error=error,
            usage=spent.usage,
            cost_usd=spent.cost_usd,
            finished_at=time.time(),
        )
        final = self._final(ChunkType.ERROR, error, spent, said)
        self._keep(error=error, error_type=said.get("error_type", ""))
        chunks = (*await self._chunks.finish(), final)
        return {"result": result, "chunks": chunks, "records": self._chunks.take_records()}

    def _final(self, kind: ChunkType, content: str, spent: Spent, said: Mapping[str, Any]) -> ChunkDraft:
        return ChunkDraft(
            type=kind,
            content=content,
            turn=self._chunks.turn,
            attempt=self._chunks.attempt,
            metadata={"usage": msgspec.to_builtins(spent.usage), "cost_usd": spent.cost_usd, **said},
            is_final=True,
        )


def _plain(call: ToolCall) -> JsonObject:
    return {"id": call.id, "name": call.name, "arguments": call.arguments}


def _enqueued_at(task: Task) -> float | None:
    """Unix seconds."""
    try:
        return datetime.fromisoformat(task.enqueued_at).timestamp()
    except ValueError:
        return None
