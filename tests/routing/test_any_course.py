"""Whatever the targets of a route do, in whatever order, and whenever the run is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from providers import (
    AgentConfig,
    AuthenticationFailed,
    ChatProvider,
    ContextTooLong,
    LLMProvider,
    Message,
    Overloaded,
    ProviderError,
    RateLimited,
    Refused,
    StopReason,
    StreamBroken,
    TextDelta,
    ToolCall,
    ToolOutcome,
    TurnEnd,
    TurnEvent,
    TurnRequest,
    UsageUpdate,
    tool_loop,
)
from providers.pricing import PriceBook
from providers.tool_loop import TurnRecord
from providers.turn_routing import Target
from queue_backends import CallOutcome, ChunkType, Task, TokenUsage, open_backend
from queue_backends.interfaces import ATTEMPTS_PER_DELIVERY
from worker.errors import Postponed
from worker.routing import read_route
from worker.routing.routing_metrics import RoutingMetrics
from worker.routing.run_router import RunRouter
from worker.routing.sessions import Sessions
from worker.routing.target_state import TargetStates

LIMIT_S = 30
USAGE = TokenUsage(input_tokens=3, output_tokens=2)
ERRORS: dict[str, type[ProviderError]] = {
    "overloaded": Overloaded,
    "rate limited": RateLimited,
    "no key": AuthenticationFailed,
    "too long": ContextTooLong,
    "refused": Refused,
    "broken": StreamBroken,
}


class Act(Struct, frozen=True):
    """What one call does: wait, speak, wait, and end or fail."""

    before: int
    words: int
    between: int
    error: str


ACTS = st.builds(
    Act,
    before=st.integers(0, 6),
    words=st.integers(0, 3),
    between=st.integers(0, 3),
    error=st.sampled_from(["", "", *ERRORS]),
)


class Company(ChatProvider):
    """Plays the acts one after the other, call by call; when they run out, all is well."""

    name = "company"

    def __init__(self, acts: list[Act]) -> None:
        self.acts = list(acts)
        self.open = 0

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        act = self.acts.pop(0) if self.acts else Act(0, 1, 0, "")
        self.open += 1
        try:
            for _ in range(act.before):
                await asyncio.sleep(0.0004)
            said = [f"{request.turn}.{request.attempt}.{word} " for word in range(act.words)]
            for word in said:
                yield TextDelta(word)
                for _ in range(act.between):
                    await asyncio.sleep(0)
            if act.error:
                raise ERRORS[act.error](f"it is {act.error}")
            yield UsageUpdate(USAGE)
            calls = (ToolCall(id=f"c{request.turn}", name="t"),) if request.turn == 0 else ()
            message = Message(role=Message.assistant("").role, parts=(*Message.assistant("".join(said)).parts, *calls))
            yield TurnEnd(message=message, stop_reason=StopReason.END_TURN, usage=USAGE, model="")
        finally:
            self.open -= 1


class Book:
    """Observer and chunk function: keeps account of every call, and of what was published under which attempt."""

    def __init__(self) -> None:
        self.speaking = (0, 0)
        self.begun: list[tuple[int, int]] = []
        self.ended: dict[tuple[int, int], TurnRecord] = {}
        self.chunks: list[tuple[int, int, str]] = []
        self.targets: dict[tuple[int, int], Target] = {}

    def finished_turn(self, turn: int, attempt: int) -> None:
        raise AssertionError("nothing is resumed here")

    def goes_to(self, request: TurnRequest, target: Target) -> None:
        assert (request.turn, request.attempt) not in self.targets
        self.targets[request.turn, request.attempt] = target

    def speaks(self, request: TurnRequest) -> None:
        self.speaking = (request.turn, request.attempt)

    async def before_turn(self, request: TurnRequest, used: TokenUsage) -> None:
        self.begun.append((request.turn, request.attempt))
        self.speaking = (request.turn, request.attempt)
        await asyncio.sleep(0)

    async def after_turn(self, record: TurnRecord) -> None:
        assert (record.turn, record.attempt) not in self.ended
        self.ended[record.turn, record.attempt] = record
        if record.outcome is not CallOutcome.CANCELLED:
            await asyncio.sleep(0)

    async def after_tool(self, call: ToolCall, outcome: ToolOutcome) -> None:
        await asyncio.sleep(0)

    async def __call__(self, kind: ChunkType, content: str, metadata: Mapping[str, Any] | None = None, /) -> None:
        if kind is ChunkType.CONTENT:
            self.chunks.append((*self.speaking, content))
        await asyncio.sleep(0)


@settings(max_examples=80, deadline=None)
@given(
    acts=st.lists(ACTS, max_size=14),
    targets=st.integers(1, 4),
    hedges=st.booleans(),
    cancel_after=st.none() | st.floats(0, 0.02),
)
def test_calls_are_bounded_accounted_and_heard_one_at_a_time(
    acts: list[Act], targets: int, hedges: bool, cancel_after: float | None
) -> None:
    """Every call that began has ended once, with one record; no target stays reserved and no stream open; attempts are
    within their bound; what was published under an attempt is that attempt's own words, each turn's in rising order;
    and an answer is what the call that was completed said."""
    asyncio.run(_played(acts, targets, hedges, cancel_after))


async def _played(acts: list[Act], targets: int, hedges: bool, cancel_after: float | None) -> None:
    company, book, states = Company(acts), Book(), TargetStates()

    async def take(config: AgentConfig) -> LLMProvider:
        return company

    async def call_tool(call: ToolCall) -> ToolOutcome:
        return ToolOutcome(call_id=call.id, name=call.name, content="done")

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)

    agent = AgentConfig(model="", route="r", max_turn_restarts=2)
    task = Task(id="1-0", prompt="hi")
    names = [{"model": f"m{number}", "weight": number} for number in range(1, targets + 1)]
    async with await open_backend("memory://") as backend, asyncio.timeout(LIMIT_S):
        router = RunRouter(
            read_route("r", {"targets": names, "hedge_after_s": 0.001} if hedges else names),
            agent,
            task,
            take=take,
            states=states,
            sessions=Sessions(backend.state),
            prices=PriceBook(),
            metrics=RoutingMetrics(),
            is_healthy=lambda _: True,
        )
        run = asyncio.create_task(
            tool_loop.run(None, agent, task, (), call_tool, book, book, attempt=20, sleep=sleep, router=router)
        )
        output = None
        if cancel_after is not None:
            asyncio.get_running_loop().call_later(cancel_after, run.cancel)
        try:
            output = (await run).output
        except (ProviderError, Postponed):
            output = None  # every target has failed, or a model refused
        except asyncio.CancelledError:
            assert cancel_after is not None
    assert company.open == 0
    assert all(state.in_flight == 0 for _, state in states.known())
    assert len(set(book.begun)) == len(book.begun)
    assert all(20 <= attempt < 20 + ATTEMPTS_PER_DELIVERY for _, attempt in book.begun)
    # A run that is cancelled before its call was sent has no record of it.
    assert set(book.ended) <= set(book.begun)
    assert cancel_after is not None or hedges or set(book.ended) == set(book.begun)
    assert all(words.startswith(f"{turn}.{attempt}.") for turn, attempt, words in book.chunks if words)
    assert [chunk[:2] for chunk in book.chunks] == sorted(chunk[:2] for chunk in book.chunks)
    if output is not None:
        completed = [key for key, record in book.ended.items() if record.outcome is CallOutcome.COMPLETED]
        assert [turn for turn, _ in completed] == [0, 1]
        assert output == "".join(words for turn, attempt, words in book.chunks if (turn, attempt) == completed[1])
