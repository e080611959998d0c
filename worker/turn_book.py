"""What happens around each model call: may it be sent, what was it, what did it cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import closing
from typing import Any

from msgspec.structs import replace

from providers import AgentConfig, ProviderError, ToolCall, ToolOutcome, TurnRequest, structured
from providers.tool_loop import Run, TurnRecord
from providers.turn_routing import Target
from queue_backends import CallOutcome, Delivery, TokenUsage, UsageRecord
from worker.budgets.rules import BudgetRule
from worker.call_gates import CallGate, ModelCallIntent
from worker.journal import AttemptEnded, ModelCall, Switched, TakenOver
from worker.metrics import AgentMetrics, ModelMetrics
from worker.recall import Past
from worker.streaming import ChunkWriter
from worker.surroundings import Surroundings
from worker.teams.marks import marks_of
from worker.telemetry import OFF, Span
from worker.tool_book import ToolBook

CHARS_PER_TOKEN = 4
_COMPLETED, _FAILED, _CANCELLED = CallOutcome.COMPLETED, CallOutcome.FAILED, CallOutcome.CANCELLED  # as in `tool_loop`
ROUTE = "(route)"
"""Stands for the provider of a call of which nobody knows which target of a route it went to."""


class TurnBook:
    """The `LoopObserver` of a run: budget before a turn; usage record and journal after it, and around each tool."""

    __slots__ = (
        "_agent_metrics",
        "_around",
        "_asked",
        "_chunks",
        "_delivery",
        "_intents",
        "_is_priced",
        "_model_metrics",
        "_provider",
        "_spans",
        "_targets",
        "_tools",
        "budgets",
        "config",
        "cost_usd",
        "next_attempt",
        "past",
        "stop_reason",
        "structured",
        "tool_calls",
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
        past: Past,
    ) -> None:
        self.config = config
        self.usage = past.resumption.used
        self.cost_usd = past.cost_usd if past.has_entries else None
        self.stop_reason = ""
        self.structured: Any = None
        """What the answer holds, where the agent has an output schema."""
        self.tool_calls: tuple[ToolCall, ...] = ()
        """The calls that the run leaves to its client."""
        self.next_attempt = delivery.next_attempt + 1
        """One more than any attempt that was used."""
        self._tools: ToolBook | None = None
        self._is_priced = past.cost_usd is not None
        self._around = around
        self._delivery = delivery
        self._provider = provider
        self._asked = config.route if provider == ROUTE else config.model
        self._chunks = chunks
        self._agent_metrics = metrics
        self._model_metrics: ModelMetrics | None = None
        self.budgets: tuple[BudgetRule, ...] = ()
        """Of its team and its role, beside the fleet's."""
        self.past = past
        # Most runs are neither traced nor routed nor gated: an empty dict weighs 64 bytes.
        self._spans: dict[int, Span] | None = None
        """By attempt: of calls that are under way and traced."""
        self._targets: dict[int, Target] | None = None
        """By attempt: where calls go, in a run whose calls have a choice."""
        self._intents: dict[int, ModelCallIntent] | None = None
        """By attempt: calls that stand in the gates or have passed them, and have not ended."""

    @property
    def tools(self) -> ToolBook:
        """The account of its tool calls."""
        if self._tools is None:  # many runs have none
            self._tools = ToolBook(self._around.journal, self._delivery, self._chunks, self.past)
        return self._tools

    def take_over(self) -> None:
        """Note that a task with a past goes on here; it is stored before the first model call is sent."""
        past, delivery = self.past, self._delivery
        for call in past.lost_calls:
            lost = TurnRecord(
                turn=call.turn,
                attempt=call.attempt,
                provider=call.switch.provider if call.switch else "",
                asked_model=call.switch.model if call.switch else "",
                target=call.switch.target if call.switch else "",
                outcome=CallOutcome.LOST,
                usage=TokenUsage(),
                started_at=time.time(),
                duration_ms=0,
                error="its worker died",
            )
            self._note(lost, self._usage_record(lost, lost.usage, estimated=False))
        if past.has_entries or delivery.redeliveries:
            entry = TakenOver(worker=delivery.worker, attempt=delivery.next_attempt, crashes=delivery.redeliveries)
            self._chunks.note(*self._around.journal.records(delivery.task.id, entry))

    def finished_turn(self, turn: int, attempt: int) -> None:
        """What follows belongs to a turn that was finished before."""
        self._chunks.turn, self._chunks.attempt = turn, attempt

    def goes_to(self, request: TurnRequest, target: Target) -> None:
        """The call goes to this target of a route; if that is not where it would go anyway, that is stored first."""
        self._targets = self._targets or {}
        self._targets[request.attempt] = target
        if target.switch is not None:
            entry = Switched(
                worker=self._delivery.worker, turn=request.turn, attempt=request.attempt, switch=target.switch
            )
            self._chunks.note(*self._around.journal.records(self._delivery.task.id, entry))

    def speaks(self, request: TurnRequest) -> None:
        """Of two calls of a turn this one has spoken first: what follows is its."""
        self._chunks.turn, self._chunks.attempt = request.turn, request.attempt

    async def before_turn(self, request: TurnRequest, used: TokenUsage) -> None:
        """Raises `BudgetExceeded` if a budget is used up, or `Postponed` if a rate limit leaves no room for long."""
        around, chunks = self._around, self._chunks
        for gate in around.gates:
            if gate.active or self.budgets:
                await self._enter_gates(request)
                break
        if chunks.has_news:
            try:
                await chunks.store()
            except BaseException:
                self._abandon(request.attempt)
                raise
        chunks.turn, chunks.attempt = request.turn, request.attempt  # of two calls the one that speaks sets it again
        if request.attempt >= self.next_attempt:
            self.next_attempt = request.attempt + 1
        if around.telemetry.enabled:
            self._open_span(request, (self._targets or {}).get(request.attempt))

    def _open_span(self, request: TurnRequest, target: Target | None) -> None:
        config = request.config
        self._spans = self._spans or {}
        span = self._spans[request.attempt] = self._around.telemetry.model_call(
            provider=self._provider if target is None else config.provider,
            model=config.model,
            turn=request.turn,
            attempt=request.attempt,
            max_tokens=config.max_tokens,
        )
        if target is None:
            return
        span.set("shoal.route", config.route)
        span.set("shoal.route.target", target.name)
        if (switch := target.switch) is not None:
            span.event("route.switch", {"from": switch.before, "reason": switch.reason, "error": switch.error})

    async def _enter_gates(self, request: TurnRequest) -> None:
        around, task = self._around, self._delivery.task
        marks = marks_of(task.meta)
        intent = ModelCallIntent(
            id=f"{task.id}:{request.turn}:{request.attempt}",
            task=task,
            config=request.config,
            request=request,
            provider=request.config.provider if self._targets else self._provider,
            team=around.team if marks is None else marks.team,
            role=around.role if marks is None else marks.role,
            budgets=self.budgets,
        )
        entered: list[CallGate] = []
        try:
            for gate in around.gates:
                await gate.enter(intent)
                entered.append(gate)
        except BaseException:
            for gate in reversed(entered):
                gate.abandon(intent)
            raise
        self._intents = self._intents or {}
        self._intents[request.attempt] = intent

    async def _leave_gates(self, intent: ModelCallIntent, record: TurnRecord, entry: UsageRecord) -> None:
        around = self._around
        if record.outcome is CallOutcome.COMPLETED:
            around.estimates.learn(intent, entry.usage.input_tokens, entry.usage.output_tokens)
        gates = list(around.gates)
        try:
            while gates:
                await gates.pop().leave(intent, record, entry)
        except asyncio.CancelledError:
            for gate in reversed(gates):
                gate.note(intent, record, entry)
            raise

    def close(self) -> None:
        """The run has ended: a call that had passed the gates and was then not sent gives back what it reserved."""
        if self._intents:
            for attempt in list(self._intents):
                self._abandon(attempt)

    def _abandon(self, attempt: int) -> None:
        if self._intents and (intent := self._intents.pop(attempt, None)):
            for gate in reversed(self._around.gates):
                gate.abandon(intent)

    async def after_turn(self, record: TurnRecord) -> None:
        """Note what was used, and what was answered. Between two model calls it is stored before anything else
        happens; if tools follow, in one step with the start of the first. The last one goes with the outcome, and so
        does that of a cancelled call, which must not wait."""
        usage, estimated = billed(record)
        self.usage = self.usage + usage
        if self._spans:
            self._end_span(record, usage)
        if self._targets:
            self._targets.pop(record.attempt, None)
        first_chunk_ms = record.time_to_first_chunk_ms
        self._metrics_of(record).called(
            record.duration_ms / 1000,
            usage,
            outcome=str(record.outcome),
            first_chunk_s=None if first_chunk_ms is None else first_chunk_ms / 1000,
        )
        entry = self._usage_record(record, usage, estimated=estimated)
        intent = self._intents.pop(record.attempt, None) if self._intents else None
        if intent is not None:
            entry = intent.receipt.noted_in(entry)
        self._note(record, entry)
        self._add_cost(entry.cost_usd)
        if record.outcome is _CANCELLED:
            if intent is not None:
                for gate in reversed(self._around.gates):
                    gate.note(intent, record, entry)
            return
        if intent is not None:
            await self._leave_gates(intent, record, entry)
        if not record.is_last and not _tools_follow(record):
            await self._chunks.store()

    def _metrics_of(self, record: TurnRecord) -> ModelMetrics:
        if record.target:
            return self._agent_metrics.model(record.provider, record.asked_model)
        if self._model_metrics is None:
            self._model_metrics = self._agent_metrics.model(self._provider, self.config.model)
        return self._model_metrics

    def _end_span(self, record: TurnRecord, usage: TokenUsage) -> None:
        span = (self._spans or {}).pop(record.attempt, OFF)
        span.usage(usage)
        span.set("gen_ai.response.model", record.end.model or None if record.end else None)
        if record.error:
            span.fail(record.error, kind=record.outcome.value)
        span.end()

    def _usage_record(self, record: TurnRecord, usage: TokenUsage, *, estimated: bool) -> UsageRecord:
        around, task = self._around, self._delivery.task
        marks = marks_of(task.meta)
        provider = record.provider or self._provider
        model = record.model or record.asked_model or self._asked
        entry = UsageRecord(  # at most 15 keywords: see `OpenCall.record`
            id=f"{task.id}:{record.turn}:{record.attempt}",
            task_id=task.id,
            provider=provider,
            model=model,
            usage=usage,
            outcome=record.outcome,
            started_at=record.started_at,
            duration_ms=record.duration_ms,
            time_to_first_chunk_ms=record.time_to_first_chunk_ms,
            cost_usd=0.0 if self._is_free(record) else around.prices.cost_usd(provider, model, usage),
            agent=self.config.name or task.agent,
            tenant=task.tenant,
            session_id=task.session_id,
            team=around.team if marks is None else marks.team,
            role=around.role if marks is None else marks.role,
        )
        return replace(entry, estimated=True) if estimated else entry

    def _is_free(self, record: TurnRecord) -> bool:
        """No vendor bills a call that failed before its answer began. A provider that runs whole tasks may have made
        others before."""
        if record.outcome is not _FAILED:
            return False
        is_whole_run = self._tools is not None and self._tools.is_whole_run
        return record.usage == TokenUsage() and not is_whole_run

    def _note(self, record: TurnRecord, usage: UsageRecord) -> None:
        around = self._around
        entry = ModelCall(
            worker=self._delivery.worker,
            turn=record.turn,
            attempt=record.attempt,
            usage=usage,
            end=None if record.is_last and not _tools_follow(record) else record.end,
            error=record.error,
            target=record.target,
        )
        journal = around.journal.records(self._delivery.task.id, entry, is_last=record.is_last)
        self._chunks.note(around.ledger.log_record(usage), *journal)

    def charge(self, usage: TokenUsage, cost_usd: float | None) -> None:
        """A call has ended that has a book of its own, and is part of what the run costs."""
        self.usage = self.usage + usage
        self._add_cost(cost_usd)

    def _add_cost(self, cost_usd: float | None) -> None:
        if cost_usd is None:
            self._is_priced = False
        self.cost_usd = (self.cost_usd or 0.0) + cost_usd if cost_usd is not None and self._is_priced else None

    async def after_tool(self, call: ToolCall, outcome: ToolOutcome) -> None:
        """Store what a tool answered."""
        await self.tools.after_tool(call, outcome)

    def attempt_ended(
        self, how: str, error: str = "", retry_in_s: float | None = None, since: float | None = None
    ) -> None:
        """Note that the attempt did not lead to an answer; it goes with the outcome."""
        entry = AttemptEnded(
            worker=self._delivery.worker,
            attempt=self._delivery.next_attempt,
            how=how,
            error=error,
            retry_in_s=retry_in_s,
            since=since,
        )
        is_last = how in ("dead", "cancelled")
        self._chunks.note(*self._around.journal.records(self._delivery.task.id, entry, is_last=is_last))

    def answered(self, run: Run) -> None:
        """Note what the run came to. Why a provider that runs whole tasks stopped, nobody knows."""
        self.stop_reason = "" if self._tools is not None and self._tools.is_whole_run else str(run.stop_reason)
        self.structured = run.structured
        self.tool_calls = run.tool_calls

    async def whole_run(self, run: Coroutine[Any, Any, tuple[str, TokenUsage]]) -> Run:
        """A provider that runs whole tasks counts as one call: its turns are its own affair."""
        self.tools.is_whole_run = True
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
                is_last=outcome is CallOutcome.COMPLETED,
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
        value = structured.value_of(self.config, output)
        return Run(output=output, usage=usage, turns=1, messages=(), structured=value)


def _tools_follow(record: TurnRecord) -> bool:
    """Whether tools are called next: `ToolBook` stores what was noted before it lets the first one begin. Those of the
    client are called when the run is over."""
    return record.end is not None and record.end.message.calls_tools


def billed(record: TurnRecord) -> tuple[TokenUsage, bool]:
    """What a call has used, and whether that is our estimate: a vendor reports no usage for a stream that was cut or
    cancelled, but bills what had been produced."""
    usage, outcome = record.usage, record.outcome
    if outcome is _COMPLETED or outcome is _FAILED or not record.sent_chars:
        return usage, False
    if usage.input_tokens is not None or usage.output_tokens is not None:
        return usage, False
    return (
        TokenUsage(
            input_tokens=record.sent_chars // CHARS_PER_TOKEN,
            output_tokens=record.streamed_chars // CHARS_PER_TOKEN,
        ),
        True,
    )
