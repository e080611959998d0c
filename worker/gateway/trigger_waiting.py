"""What a webhook's caller gets who waits for the run that it started: its result, or its events as they come.

Words of answers and events are kubeswarm's. Source: its trigger webhook server.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from queue_backends import ChunkType, QueueError, TokenUsage
from queue_backends.messages import encode_json
from worker.background import BackgroundWork, heed_cancellation
from worker.gateway.context import Gateway
from worker.gateway.operation import Answer
from worker.gateway.problem import Problem
from worker.gateway.sse_event import SseEvent
from worker.teams.errors import TeamError
from worker.teams.run_state import Phase, RunState, StepState
from worker.teams.triggers.go_duration import as_go_duration, parse_go_duration

DEFAULT_TIMEOUT_S: Final = 60.0
LONGEST_TIMEOUT_S: Final = 300.0
_MOST_WAITING_EVENTS: Final = 512


class UsageView(Struct, frozen=True, kw_only=True, rename="camel"):
    """Tokens of a run or a step."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class RunResult(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How a run ended."""

    run: str
    status: str
    """`succeeded`, `failed` or `cancelled`."""
    phase: Phase
    output: str = ""
    error: str = ""
    duration_ms: int = 0
    token_usage: UsageView | None = None
    cost_usd: float | None = None


def timeout_of(text: str) -> float:
    """`?timeout=` in seconds: 60 without one, 300 at most. Raises `Problem` 400."""
    if not text:
        return DEFAULT_TIMEOUT_S
    try:
        return min(max(parse_go_duration(text), 0.001), LONGEST_TIMEOUT_S)
    except ValueError as error:
        raise Problem(400, f"timeout: {error}", code="invalid_query") from None


async def waited_for(gateway: Gateway, run_id: str, timeout_s: float) -> Answer:
    """The run's result; 500 if it failed, 504 if it has not ended in time: then it goes on all the same."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            state = await _ended(gateway, run_id)
    except TimeoutError:
        body = {
            "error": f"timed out after {as_go_duration(timeout_s)} waiting for run to complete",
            "durationMs": _since_ms(started),
            "run": run_id,
        }
        return Answer(value=body, status=504)
    result = result_of(state, _since_ms(started))
    return Answer(value=result, status=200 if result.status == "succeeded" else 500)


async def _ended(gateway: Gateway, run_id: str) -> RunState:
    states = cast("AsyncGenerator[RunState, None]", gateway.runs.follow(run_id))
    async with aclosing(states):
        last: RunState | None = None
        async for last in states:
            if last.phase.is_final:
                return last
    raise Problem(503, f"run {run_id} cannot be followed: ask for it again", code="backend_unavailable")


def result_of(state: RunState, duration_ms: int) -> RunResult:
    """A run that has ended, as its caller sees it."""
    is_good = state.phase is Phase.SUCCEEDED
    return RunResult(
        run=state.id,
        status=state.phase.value.lower(),
        phase=state.phase,
        output=state.output,
        error="" if is_good else state.message or state.reason or "the run failed",
        duration_ms=duration_ms,
        token_usage=_usage(state.usage),
        cost_usd=state.cost_usd,
    )


async def events_of(gateway: Gateway, run_id: str, timeout_s: float) -> AsyncGenerator[SseEvent, None]:
    """`step.started`, `token`, `step.completed`, `step.failed`, `step.skipped` as they happen; the last one is
    `flow.completed`, `flow.failed`, or `error` if the time is over."""
    watch = _RunWatch(gateway, run_id)
    deadline = asyncio.get_running_loop().time() + timeout_s
    async with BackgroundWork(watch.run, name=f"events of run {run_id}"):
        try:
            while (event := await _next(watch, deadline)) is not None:
                yield event
        except TimeoutError:
            yield _event("error", {"error": f"timed out after {as_go_duration(timeout_s)}"})


async def _next(watch: _RunWatch, deadline: float) -> SseEvent | None:
    """The next event, None at the end. Raises `TimeoutError`. Only the waiting is timed: what is yielded may take as
    long as its client."""
    async with asyncio.timeout_at(deadline):
        return await watch.events.get()


class _RunWatch:
    """Follows a run, and the streams of the steps that are at work. A slow client holds up only itself."""

    def __init__(self, gateway: Gateway, run_id: str) -> None:
        self._gateway = gateway
        self._run_id = run_id
        self._phases: dict[str, Phase] = {}
        self._streams: dict[str, asyncio.Task[None]] = {}
        """By task."""
        self._started = time.monotonic()
        self.events: asyncio.Queue[SseEvent | None] = asyncio.Queue(_MOST_WAITING_EVENTS)

    async def run(self) -> None:
        """Put all events; None at the end."""
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._follow(tasks)
                for stream in self._streams.values():
                    stream.cancel()
        except* (QueueError, TeamError) as errors:
            heed_cancellation()
            await self.events.put(_event("error", {"error": str(errors.exceptions[0])}))
        await self.events.put(None)

    async def _follow(self, tasks: asyncio.TaskGroup) -> None:
        states = cast("AsyncGenerator[RunState, None]", self._gateway.runs.follow(self._run_id))
        async with aclosing(states):
            async for state in states:
                for step in state.steps:
                    await self._step(step, tasks)
                if state.phase.is_final:
                    await self._end(state)
                    return

    async def _step(self, step: StepState, tasks: asyncio.TaskGroup) -> None:
        before = self._phases.get(step.name, Phase.PENDING)
        if before is not step.phase:
            self._phases[step.name] = step.phase
            if step.phase is Phase.RUNNING:
                await self._put("step.started", {"step": step.name, "phase": "Running"})
        if step.task_id and step.task_id not in self._streams:
            self._streams[step.task_id] = tasks.create_task(self._tokens(step.task_id))
        if before is step.phase or not step.phase.is_final:
            return
        if (stream := self._streams.get(step.task_id)) is not None:
            await asyncio.wait([stream], timeout=2.0)  # so that its last tokens come before
        await self._step_ended(step)

    async def _step_ended(self, step: StepState) -> None:
        if step.phase is Phase.SUCCEEDED:
            told = {
                "step": step.name,
                "output": step.output,
                "durationMs": max(0, round(1000 * (step.ended_at - step.started_at))),
                "tokenUsage": _usage(step.usage),
            }
            await self._put("step.completed", told)
        elif step.phase is Phase.SKIPPED:
            await self._put("step.skipped", {"step": step.name})
        else:
            await self._put("step.failed", {"step": step.name, "error": step.message})

    async def _tokens(self, task_id: str) -> None:
        """A turn that starts over, after a crash, is told anew: these events have no way to take something back."""
        with contextlib.suppress(QueueError):  # the run's own events go on without it
            async with aclosing(self._gateway.hub.follow(task_id)) as chunks:
                async for chunk in chunks:
                    if chunk.type is ChunkType.CONTENT and chunk.content:
                        await self._put("token", {"token": chunk.content})

    async def _end(self, state: RunState) -> None:
        result = result_of(state, _since_ms(self._started))
        name = "flow.completed" if result.status == "succeeded" else "flow.failed"
        await self._put(name, msgspec.to_builtins(result))

    async def _put(self, name: str, data: dict[str, Any]) -> None:
        await self.events.put(_event(name, data))


def _event(name: str, data: dict[str, Any]) -> SseEvent:
    return SseEvent(encode_json(data), name)


def _usage(usage: TokenUsage) -> UsageView:
    return UsageView(
        input_tokens=usage.input_tokens or 0,
        output_tokens=usage.output_tokens or 0,
        total_tokens=usage.total_tokens or 0,
    )


def _since_ms(started: float) -> int:
    return round(1000 * (time.monotonic() - started))
