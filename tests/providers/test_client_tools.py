"""Tools of the client's: a call of one ends the run, in the loop and in a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from providers import (
    AgentConfig,
    ChatProvider,
    ClientTool,
    Message,
    Role,
    StopReason,
    TextDelta,
    TextPart,
    ToolCall,
    ToolOutcome,
    ToolSpec,
    TurnEnd,
    TurnEvent,
    TurnRequest,
    tool_loop,
)
from providers.messages import Part
from providers.tool_loop import FinishedTurn, Resumption, TurnRecord
from queue_backends import ChunkType, InvalidTask, Task, TokenUsage
from worker.tools.client_tools import with_client_tools

USAGE = TokenUsage(input_tokens=10, output_tokens=5)
OWN = ToolCall(id="1", name="own", arguments='{"n": 1}')
CLIENTS = ToolCall(id="2", name="theirs", arguments='{"n": 2}')


def end(text: str, *calls: ToolCall) -> TurnEnd:
    """A turn that says so and asks for these calls."""
    parts: tuple[Part, ...] = (TextPart(text=text), *calls)
    reason = StopReason.TOOL_USE if calls else StopReason.END_TURN
    return TurnEnd(message=Message(role=Role.ASSISTANT, parts=parts), stop_reason=reason, usage=USAGE, model="m")


class Playback(ChatProvider):
    """Plays one turn per model call."""

    name = "playback"

    def __init__(self, *turns: TurnEnd) -> None:
        self.turns = list(turns)
        self.requests: list[TurnRequest] = []

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """The next turn."""
        turn = self.turns[len(self.requests)]
        self.requests.append(request)
        yield TextDelta(turn.message.text)
        yield turn


class Observed:
    """What the loop tells its surroundings."""

    def __init__(self) -> None:
        self.records: list[TurnRecord] = []
        self.chunks: list[tuple[ChunkType, str, dict[str, Any]]] = []
        self.called: list[str] = []

    def finished_turn(self, turn: int, attempt: int) -> None:
        """Not looked at."""

    async def before_turn(self, request: TurnRequest, used: TokenUsage) -> None:
        """Not looked at."""

    async def after_turn(self, record: TurnRecord) -> None:
        """Kept."""
        self.records.append(record)

    async def after_tool(self, call: ToolCall, outcome: ToolOutcome) -> None:
        """Not looked at."""

    async def chunk(self, kind: ChunkType, content: str, metadata: Any = None, /) -> None:
        """Kept."""
        self.chunks.append((kind, content, metadata or {}))

    async def call_tool(self, call: ToolCall) -> ToolOutcome:
        """An outcome that tells whose it is."""
        self.called.append(call.name)
        return ToolOutcome(call_id=call.id, name=call.name, content=f"{call.name} answered")


async def run(
    provider: ChatProvider, observed: Observed, resumption: Resumption | None = None, **config: Any
) -> tool_loop.Run:
    """One run with one own tool and one of the client's."""
    agent = AgentConfig(model="m", client_tools=(ClientTool(name="theirs"),), **config)
    specs = with_client_tools(agent, [ToolSpec(name="own")], provider)
    async with asyncio.timeout(30):
        return await tool_loop.run(
            provider,
            agent,
            Task(id="1-0", prompt="hi"),
            specs,
            observed.call_tool,
            observed.chunk,
            observed,  # type: ignore[arg-type]  # the methods of routed runs are never called
            resumption=resumption,
        )


async def test_call_of_the_clients_ends_the_run() -> None:
    """The run ends with the calls, after one model call, and nobody here carries them out."""
    provider, observed = Playback(end("Ask them.", CLIENTS)), Observed()
    result = await run(provider, observed)
    assert (result.stop_reason, result.tool_calls, result.output) == (StopReason.TOOL_USE, (CLIENTS,), "Ask them.")
    assert observed.called == []
    assert [record.is_last for record in observed.records] == [True]
    assert [spec.name for spec in provider.requests[0].tools] == ["own", "theirs"]
    assert observed.chunks[-1] == (
        ChunkType.TOOL_CALL,
        "theirs",
        {"id": "2", "name": "theirs", "arguments": {"n": 2}, "is_client": True},
    )


async def test_own_tools_of_the_same_turn_are_called_first() -> None:
    """A mixed turn: the own tool has its outcome in the conversation before the run ends."""
    observed = Observed()
    result = await run(Playback(end("Both.", CLIENTS, OWN)), observed)
    assert observed.called == ["own"]
    assert result.tool_calls == (CLIENTS,)
    assert [record.is_last for record in observed.records] == [False]
    assert [part.content for part in result.messages[-1].parts if isinstance(part, ToolOutcome)] == ["own answered"]


async def test_mixed_turn_is_resumed_without_calling_again() -> None:
    """A worker that takes over after the own tool has answered calls neither it nor the model."""
    outcome = ToolOutcome(call_id="1", name="own", content="answered before")
    done = FinishedTurn(attempt=0, end=end("Both.", OWN, CLIENTS), outcomes={"1": outcome}, announced=frozenset({"1"}))
    provider, observed = Playback(), Observed()
    result = await run(provider, observed, Resumption(turns=(done,), used=USAGE))
    assert (provider.requests, observed.called) == ([], [])
    assert result.tool_calls == (CLIENTS,)
    assert result.usage == USAGE


async def test_answer_without_a_call_is_an_answer() -> None:
    """The client's tools may be left alone, and own ones used, as in any run."""
    observed = Observed()
    result = await run(Playback(end("", OWN), end("Done.")), observed)
    assert (result.output, result.tool_calls, result.stop_reason) == ("Done.", (), StopReason.END_TURN)


async def test_calls_for_the_client_need_not_fit_the_schema() -> None:
    """An output schema is about answers: what stands beside a call is none."""
    observed = Observed()
    result = await run(Playback(end("Not JSON.", CLIENTS)), observed, output_schema={"type": "object"})
    assert (result.tool_calls, result.structured) == ((CLIENTS,), None)


@pytest.mark.parametrize(
    ("tools", "said"),
    [((ClientTool(name="own"),), "the agent has a tool of that name"), ((ClientTool(name="x"),) * 2, "more than once")],
)
def test_names_that_clash_are_refused(tools: tuple[ClientTool, ...], said: str) -> None:
    """A client's tool takes nobody's name."""
    with pytest.raises(InvalidTask, match=said):
        with_client_tools(AgentConfig(model="m", client_tools=tools), [ToolSpec(name="own")], Playback())


def test_providers_that_run_whole_tasks_are_refused() -> None:
    """Who calls tools by itself would call the client's as well."""

    class Whole:
        name = "whole"

        async def run_task(self, *_: Any) -> tuple[str, TokenUsage]:
            """Never called."""
            return "", USAGE

    config = AgentConfig(model="m", client_tools=(ClientTool(name="theirs"),))
    with pytest.raises(InvalidTask, match="runs whole tasks"):
        with_client_tools(config, [], Whole())
