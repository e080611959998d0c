"""One task, from delivery to outcome: the story of the product. Read it top to bottom."""

from __future__ import annotations

import asyncio
import enum
import time
from datetime import datetime
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from providers import AgentConfig, ChatProvider, LLMProvider, ProviderError, ToolCall, ToolOutcome, tool_loop
from providers.pricing import PriceBook
from queue_backends import (
    RUN_CANCELLED,
    Ack,
    Backend,
    ChunkDraft,
    ChunkType,
    Dead,
    Delivery,
    InvalidTask,
    LeaseLost,
    Outcome,
    QueueError,
    Release,
    Retry,
    Task,
    TaskResult,
    TokenUsage,
)
from worker.agents import AgentDirectory
from worker.budgets import Budget
from worker.errors import DeadlineExceeded, WorkerError
from worker.journal import Journal, entries_of, read_journal
from worker.metrics import AgentMetrics, Metrics
from worker.persistence import persistently
from worker.providers_in_use import ProvidersInUse
from worker.recall import Past, recall
from worker.retries import Failure, RetryPolicy
from worker.streaming import ChunkPublisher, ChunkWriter
from worker.telemetry import Span, Telemetry
from worker.tools.catalogue import ToolCatalogue
from worker.tools.interfaces import ToolContext
from worker.turn_book import TurnBook
from worker.usage import UsageLedger

log = structlog.get_logger(__name__)

STALE = "stale task: age exceeds timeout"


class Limits(Struct, frozen=True, kw_only=True):
    """What bounds a run."""

    timeout_s: float = 120.0
    """For one attempt."""
    max_deliveries: int = 3
    """A task whose worker died this often is given up."""
    drop_stale: bool = False
    """ark: give up a task that has waited longer than `timeout_s`."""


class Surroundings(Struct, frozen=True, kw_only=True):
    """What all runs of a worker share."""

    backend: Backend
    publisher: ChunkPublisher
    agents: AgentDirectory
    providers: ProvidersInUse
    tools: ToolCatalogue
    budget: Budget
    journal: Journal
    ledger: UsageLedger
    prices: PriceBook
    metrics: Metrics
    telemetry: Telemetry
    retries: RetryPolicy
    limits: Limits
    team: str = ""
    role: str = ""


class Stop(enum.StrEnum):
    """Why a run is ended from outside."""

    CANCELLED = "cancelled"
    """Somebody asked for it: it ends with the error `run cancelled`."""
    RELEASED = "released"
    """The worker is leaving: somebody else shall run it."""
    LEASE_LOST = "lease lost"
    """Somebody else runs it already: write nothing."""
    TIMED_OUT = "timed out"
    """It has taken too long: a failed attempt, or the end if its deadline has passed."""


class TaskRun:
    """One delivery of a task, being worked on."""

    __slots__ = ("_job", "around", "book", "chunks", "delivery", "started_at", "stop_reason", "task")

    def __init__(self, delivery: Delivery, around: Surroundings) -> None:
        self.delivery = delivery
        self.task: Task = delivery.task
        self.around = around
        self.chunks = ChunkWriter(around.publisher, delivery, self._lease_lost)
        self.book: TurnBook | None = None
        self.stop_reason: Stop | None = None
        self.started_at = time.time()
        self._job: asyncio.Task[Any] | None = None

    def stop(self, reason: Stop) -> None:
        """End the run; the first reason counts. Its outcome says so, unless it has ended by itself meanwhile."""
        if self.stop_reason is None:
            self.stop_reason = reason
            if reason is Stop.LEASE_LOST:
                self.chunks.lost = True
            if self._job is not None:
                self._job.cancel()

    def _lease_lost(self) -> None:
        self.stop(Stop.LEASE_LOST)

    def was_stopped(self) -> bool:
        """Whether somebody has told the run to end."""
        return self.stop_reason is not None

    @property
    def is_working(self) -> bool:
        """Whether it is still about its work, not yet about its last words."""
        return self._job is not None

    async def abandoned(self) -> Outcome | None:
        """How a run ends that was stopped and goes on all the same. What it does from now on is heard by nobody."""
        outcome = await self._stopped()
        self.chunks.lost = True
        return outcome

    async def outcome(self) -> Outcome | None:
        """Run the task; returns what shall be committed, or None if it is no longer ours."""
        self._job = asyncio.current_task()
        started = time.monotonic()
        metrics = self.around.metrics.agent(self.task.agent, self.around.role)
        waited_s = queue_wait_s(self.task)
        metrics.task_started(waited_s)
        with self.around.telemetry.task(
            self.task, role=self.around.role, team=self.around.team, queue_wait_s=waited_s
        ) as span:
            outcome = await self._run_to_outcome(metrics, span)
        metrics.task_ended(time.monotonic() - started, ok=isinstance(outcome, Ack) and outcome.result.ok)
        return outcome

    async def _run_to_outcome(self, metrics: AgentMetrics, span: Span) -> Outcome | None:
        if self.was_stopped():  # before it had begun
            return await self._stopped()
        try:
            output = await self._within_limit(metrics)
        except asyncio.CancelledError:
            if not self.was_stopped():
                raise
            span.fail(str(self.stop_reason), kind="stopped")
            return await self._stopped()
        except LeaseLost:
            self.chunks.lost = True
            return None
        except (ProviderError, WorkerError, QueueError) as error:
            span.fail(error)
            return await self._failed(error)
        except Exception as error:  # a provider is anybody's code: whatever it raises is a failed attempt
            log.exception("provider crashed", task=self.task.id)
            span.fail(error)
            return await self._failed(error)
        return await self._succeeded(output, span)

    async def _within_limit(self, metrics: AgentMetrics) -> str:
        """The run until it ends or is stopped; from then on nothing may cut its last words short."""
        limit = asyncio.get_running_loop().call_later(self._seconds_left(), self.stop, Stop.TIMED_OUT)
        try:
            return await self._work(metrics)
        finally:
            limit.cancel()
            self._job = None

    async def _work(self, metrics: AgentMetrics) -> str:
        """The run itself: recall what was done before, refuse what cannot run, then let the provider work."""
        around, delivery = self.around, self.delivery
        past = Past() if delivery.first else await self._recall()
        config = around.agents.config_for(self.task)
        provider = around.providers.get(config)
        book = self.book = TurnBook(around, delivery, config, provider.name, self.chunks, metrics, past)
        book.take_over()
        self._refuse_hopeless()
        return await self._run_provider(provider, config, book, past)

    async def _recall(self) -> Past:
        state, task_id = self.around.backend.state, self.task.id
        moments = await persistently(lambda: read_journal(state, task_id), "read the journal")
        return recall(entries_of(moments), self.delivery)

    def _refuse_hopeless(self) -> None:
        task, limits = self.task, self.around.limits
        if self.delivery.redeliveries >= limits.max_deliveries:
            raise Poisonous(f"worker lost: {self.delivery.redeliveries} workers died while they ran this task")
        if task.deadline is not None and time.time() >= task.deadline:
            raise DeadlineExceeded("the task's deadline had passed before it was started")
        if limits.drop_stale and (age_s := task_age_s(task)) is not None and age_s > limits.timeout_s:
            raise Poisonous(STALE)

    def _seconds_left(self) -> float:
        limit_s = self.around.limits.timeout_s
        if self.task.deadline is None:
            return limit_s
        return max(0.0, min(limit_s, self.task.deadline - time.time()))

    async def _run_provider(self, provider: LLMProvider, config: AgentConfig, book: TurnBook, past: Past) -> str:
        tools = self.around.tools.specs(config.tools)
        if isinstance(provider, ChatProvider):
            run = await tool_loop.run(
                provider,
                config,
                self.task,
                tools,
                self._call_tool,
                self.chunks,
                book,
                attempt=self.delivery.next_attempt,
                resumption=past.resumption,
            )
            book.stop_reason = run.stop_reason.value
            return run.output

        async def call_tool(call: ToolCall) -> ToolOutcome:
            outcome = await self._call_tool(call)
            await book.after_tool(call, outcome)
            return outcome

        return await book.whole_run(provider.run_task(config, self.task, tools, call_tool, self.chunks))

    async def _call_tool(self, call: ToolCall) -> ToolOutcome:
        assert self.book is not None  # noqa: S101 - no tool is called without a provider
        around, task = self.around, self.task
        spec = around.tools.spec(call.name)
        if known := await self.book.before_tool(call, spec):
            return known
        kind = spec.kind if spec else "unknown"
        context = ToolContext(
            task_id=task.id,
            agent=task.agent,
            tenant=task.tenant,
            session_id=task.session_id,
            submit=around.backend.queue.submit,
        )
        started = time.monotonic()
        with around.telemetry.tool_call(name=call.name, kind=kind, call_id=call.id) as span:
            outcome = await around.tools.call(call, context)
            if outcome.is_error:
                span.fail(outcome.content[:500], kind="tool_error")
        metrics = around.metrics.agent(task.agent, around.role)
        metrics.tool(call.name if spec else "(unknown)", kind).called(
            time.monotonic() - started, is_error=outcome.is_error
        )
        return outcome

    # How it ended

    async def _succeeded(self, output: str, span: Span) -> Outcome:
        assert self.book is not None  # noqa: S101 - nothing succeeds without a provider
        usage, cost_usd = self.book.usage, self.book.cost_usd
        span.usage(usage)
        result = TaskResult(
            task_id=self.task.id,
            output=output,
            usage=usage,
            cost_usd=cost_usd,
            finished_at=time.time(),
            structured=structured_output(self.book.config, output),
            stop_reason=self.book.stop_reason,
        )
        final = self._final(ChunkType.DONE, "", self._totals() | {"stop_reason": result.stop_reason})
        return Ack(
            delivery=self.delivery,
            result=result,
            chunks=await self._last_chunks(final),
            records=self.chunks.take_records(),
        )

    async def _failed(self, error: Exception) -> Outcome:
        failure: Failure = self.around.retries.decide(error, self.task.attempt)
        if failure.retry_in_s is None:
            log.warning("task failed", task=self.task.id, error=failure.error, attempt=self.task.attempt)
            self._note_end("dead", failure.error)
            ending = await self._ending(failure.error)
            return Dead(delivery=self.delivery, next_attempt=self._next_attempt(), **ending)
        log.warning(
            "task will be tried again", task=self.task.id, error=failure.error, in_s=round(failure.retry_in_s, 2)
        )
        self._note_end("retry", failure.error, failure.retry_in_s)
        return Retry(
            delivery=self.delivery,
            error=failure.error,
            retry_in_s=failure.retry_in_s,
            next_attempt=self._next_attempt(),
            chunks=await self.chunks.finish(),
            records=self.chunks.take_records(),
        )

    def crashed(self, error: Exception) -> Outcome:
        """What is left to say when `outcome` itself has failed: the bare error, as for any failed attempt."""
        failure = self.around.retries.decide(error, self.task.attempt)
        if failure.retry_in_s is not None:
            return Retry(delivery=self.delivery, error=failure.error, retry_in_s=failure.retry_in_s)
        result = TaskResult(task_id=self.task.id, error=failure.error, finished_at=time.time())
        return Dead(delivery=self.delivery, result=result, chunks=(self._final(ChunkType.ERROR, failure.error, {}),))

    async def _stopped(self) -> Outcome | None:
        if self.stop_reason is Stop.LEASE_LOST:
            await self.chunks.finish()
            return None
        if self.stop_reason is Stop.TIMED_OUT:
            return await self._failed(self._overtime())
        if self.stop_reason is Stop.CANCELLED:
            log.info("run cancelled", task=self.task.id)
            self._note_end("cancelled")
            return Ack(delivery=self.delivery, **await self._ending(RUN_CANCELLED))
        self._note_end("released")
        return Release(
            delivery=self.delivery,
            next_attempt=self._next_attempt(),
            chunks=await self.chunks.finish(),
            records=self.chunks.take_records(),
        )

    def _note_end(self, how: str, error: str = "", retry_in_s: float | None = None) -> None:
        if self.book is not None:
            self.book.attempt_ended(how, error, retry_in_s)

    def _next_attempt(self) -> int:
        return self.book.next_attempt if self.book else self.delivery.next_attempt

    def _overtime(self) -> WorkerError:
        if self.task.deadline is not None and time.time() >= self.task.deadline:
            return DeadlineExceeded("the task's deadline has passed")
        limit_s = self.around.limits.timeout_s
        return RunTimeout(f"the run took longer than {limit_s:g} s: raise AGENT_TIMEOUT_SECONDS")

    async def _ending(self, error: str) -> dict[str, Any]:
        """Result, chunks and records of a task that ends with an error."""
        usage = self.book.usage if self.book else TokenUsage()
        cost_usd = self.book.cost_usd if self.book else None
        result = TaskResult(task_id=self.task.id, error=error, usage=usage, cost_usd=cost_usd, finished_at=time.time())
        final = self._final(ChunkType.ERROR, error, self._totals())
        return {"result": result, "chunks": await self._last_chunks(final), "records": self.chunks.take_records()}

    def _totals(self) -> dict[str, Any]:
        usage, cost_usd = (self.book.usage, self.book.cost_usd) if self.book else (TokenUsage(), None)
        return {"usage": msgspec.to_builtins(usage), "cost_usd": cost_usd}

    def _final(self, kind: ChunkType, content: str, metadata: dict[str, Any]) -> ChunkDraft:
        return ChunkDraft(
            type=kind,
            content=content,
            turn=self.chunks.turn,
            attempt=self.chunks.attempt,
            metadata=metadata,
            is_final=True,
        )

    async def _last_chunks(self, final: ChunkDraft) -> tuple[ChunkDraft, ...]:
        return (*await self.chunks.finish(), final)


class Poisonous(InvalidTask):
    """A task that is given up without being run."""


class RunTimeout(WorkerError):
    """One attempt took too long; the next one may not."""


def structured_output(config: AgentConfig, output: str) -> Any:
    """The answer as a JSON value, where the agent promises one and the answer is one."""
    if config.output_schema is None:
        return None
    try:
        return msgspec.json.decode(output)
    except msgspec.DecodeError:
        return None


def queue_wait_s(task: Task) -> float | None:
    """How long the task was on its way, by the clocks of both sides; None if nobody noted when it began."""
    if not task.enqueued_at:
        return None
    try:
        return time.time() - datetime.fromisoformat(task.enqueued_at).timestamp()
    except ValueError:
        return None


def task_age_s(task: Task) -> float | None:
    """The age that a task's id tells, as on ark's wire: it begins with the Unix milliseconds of its birth."""
    milliseconds = task.id.partition("-")[0]
    return time.time() - int(milliseconds) / 1000 if milliseconds.isdigit() else None
