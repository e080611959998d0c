"""What happens around each model call: may it be sent, what was it, what did it cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import closing
from typing import TYPE_CHECKING, Any

from providers import AgentConfig, ProviderError, TurnRequest
from providers.tool_loop import TurnRecord
from queue_backends import CallOutcome, Delivery, LogRecord, TokenUsage
from worker.metrics import AgentMetrics
from worker.persistence import persistently
from worker.streaming import ChunkWriter
from worker.telemetry import OFF, Span
from worker.usage import record_of

if TYPE_CHECKING:
    from worker.task_run import Surroundings

CHARS_PER_TOKEN = 4


class TurnBook:
    """The `LoopObserver` of a run: budget before a turn, usage record after it."""

    __slots__ = (
        "_around",
        "_chunks",
        "_delivery",
        "_model_metrics",
        "_priced_all",
        "_provider",
        "_records",
        "_span",
        "config",
        "cost_usd",
        "stop_reason",
        "usage",
    )

    def __init__(
        self,
        around: Surroundings,
        delivery: Delivery,
        config: AgentConfig,
        provider: str,
        chunks: ChunkWriter,
        metrics: AgentMetrics,
    ) -> None:
        self.config = config
        self.usage = TokenUsage()
        self.cost_usd: float | None = None
        self.stop_reason = ""
        self._around = around
        self._delivery = delivery
        self._provider = provider
        self._chunks = chunks
        self._model_metrics = metrics.model(provider, config.model)
        self._records: list[LogRecord] = []
        self._priced_all = True
        self._span: Span = OFF

    async def before_turn(self, request: TurnRequest, used: TokenUsage) -> None:
        """Raises `BudgetExceeded` if the agent's daily tokens are used up."""
        await self._around.budget.check(self._delivery.task.id)
        self._chunks.turn = request.turn
        self._chunks.attempt = request.attempt
        self._span = self._around.telemetry.model_call(
            provider=self._provider,
            model=self.config.model,
            turn=request.turn,
            attempt=request.attempt,
            max_tokens=self.config.max_tokens,
        )

    async def after_turn(self, record: TurnRecord) -> None:
        """Note what was used. Between two model calls the record is stored before anything else happens; the last
        one goes with the outcome, and so does that of a cancelled call, which must not wait."""
        budget, task_id = self._around.budget, self._delivery.task.id
        usage, estimated = billed(record)
        self.usage = self.usage + usage
        self._end_span(record, usage)
        self._model_metrics.called(
            record.duration_ms / 1000,
            usage,
            outcome=record.outcome.value,
            first_chunk_s=record.time_to_first_chunk_ms / 1000 if record.time_to_first_chunk_ms is not None else None,
        )
        self._note(record, usage, estimated=estimated)
        if record.outcome is CallOutcome.CANCELLED:
            budget.note(task_id, turn=record.turn, attempt=record.attempt, usage=usage)
            return
        await budget.record(task_id, turn=record.turn, attempt=record.attempt, usage=usage)
        is_last = record.outcome is CallOutcome.COMPLETED and not (record.message and record.message.tool_calls)
        if not is_last:
            await self.flush()

    def _end_span(self, record: TurnRecord, usage: TokenUsage) -> None:
        span, self._span = self._span, OFF
        if span is OFF:
            return
        span.usage(usage)
        span.set("gen_ai.response.model", record.model or None)
        if record.error:
            span.fail(record.error, kind=record.outcome.value)
        span.end()

    def _note(self, record: TurnRecord, usage: TokenUsage, *, estimated: bool) -> None:
        around, task = self._around, self._delivery.task
        entry = record_of(
            task,
            turn=record.turn,
            attempt=record.attempt,
            provider=self._provider,
            model=record.model or self.config.model,
            usage=usage,
            outcome=record.outcome,
            started_at=record.started_at,
            duration_ms=record.duration_ms,
            time_to_first_chunk_ms=record.time_to_first_chunk_ms,
            estimated=estimated,
            agent=self.config.name,
            team=around.team,
            role=around.role,
            prices=around.prices,
        )
        self._records.append(around.ledger.log_record(entry))
        if entry.cost_usd is None:
            self._priced_all = False
        self.cost_usd = (
            (self.cost_usd or 0.0) + entry.cost_usd if entry.cost_usd is not None and self._priced_all else None
        )

    async def flush(self) -> None:
        """Store the records that there are, under the fence. Raises `LeaseLost`."""
        records = self.take_records()
        if records:
            await persistently(lambda: self._around.backend.append(self._delivery, records), "store usage")

    def take_records(self) -> tuple[LogRecord, ...]:
        """Records that are not stored yet; they are the caller's to store."""
        records, self._records = tuple(self._records), []
        return records

    async def whole_run(self, run: Coroutine[Any, Any, tuple[str, TokenUsage]]) -> str:
        """A provider that runs whole tasks counts as one call: its turns are its own affair."""
        attempt = self._delivery.next_attempt
        started_at, clock = time.time(), time.monotonic()

        def record(outcome: CallOutcome, usage: TokenUsage, error: str = "") -> TurnRecord:
            return TurnRecord(
                turn=0,
                attempt=attempt,
                outcome=outcome,
                usage=usage,
                started_at=started_at,
                duration_ms=round((time.monotonic() - clock) * 1000),
                error=error,
            )

        with closing(run):
            await self.before_turn(TurnRequest(config=self.config, messages=(), attempt=attempt), TokenUsage())
            try:
                output, usage = await run
            except asyncio.CancelledError:
                await self.after_turn(record(CallOutcome.CANCELLED, TokenUsage(), "cancelled"))
                raise
            except Exception as error:
                used = error.usage if isinstance(error, ProviderError) else None
                await self.after_turn(record(CallOutcome.FAILED, used or TokenUsage(), str(error)))
                raise
        await self.after_turn(record(CallOutcome.COMPLETED, usage))
        return output


def billed(record: TurnRecord) -> tuple[TokenUsage, bool]:
    """What a call has used, and whether that is our estimate: a vendor reports no usage for a stream that was cut or
    cancelled, but bills what had been produced."""
    known = record.usage.input_tokens is not None or record.usage.output_tokens is not None
    if record.outcome in (CallOutcome.COMPLETED, CallOutcome.FAILED) or known or not record.sent_chars:
        return record.usage, False
    return (
        TokenUsage(
            input_tokens=record.sent_chars // CHARS_PER_TOKEN,
            output_tokens=record.streamed_chars // CHARS_PER_TOKEN,
        ),
        True,
    )
