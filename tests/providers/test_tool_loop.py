"""The tool-use loop, over a provider that plays back events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from providers import (
    AgentConfig,
    ChatProvider,
    InvalidRequest,
    LimitReached,
    Message,
    Overloaded,
    ProviderError,
    Refused,
    Role,
    StopReason,
    StreamBroken,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ToolCall,
    ToolOutcome,
    ToolSpec,
    TurnEnd,
    TurnEvent,
    TurnRequest,
    UsageUpdate,
    tool_loop,
)
from providers.tool_loop import FinishedTurn, Resumption, TurnRecord
from queue_backends import CallOutcome, ChunkType, Task, TokenUsage

USAGE = TokenUsage(input_tokens=10, output_tokens=5)


def answer(text: str, *calls: ToolCall, stop: StopReason | None = None) -> list[TurnEvent | Exception]:
    """The events of a turn that says `text` and asks for `calls`."""
    parts = ([TextPart(text=text)] if text else []) + list(calls)
    reason = stop or (StopReason.TOOL_USE if calls else StopReason.END_TURN)
    end = TurnEnd(message=Message(role=Role.ASSISTANT, parts=tuple(parts)), stop_reason=reason, usage=USAGE, model="m")
    return [*([TextDelta(text)] if text else []), end]


class Playback(ChatProvider):
    """Plays one list of events per model call; an exception in it is raised there."""

    name = "playback"

    def __init__(self, *turns: Sequence[TurnEvent | Exception]) -> None:
        self.turns = list(turns)
        self.requests: list[TurnRequest] = []

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        self.requests.append(request)
        for event in self.turns[min(len(self.requests), len(self.turns)) - 1]:
            if isinstance(event, Exception):
                raise event
            yield event


class Watcher:
    """Observer and chunk function in one: keeps all it is told."""

    def __init__(self) -> None:
        self.records: list[TurnRecord] = []
        self.chunks: list[tuple[ChunkType, str, Mapping[str, Any]]] = []
        self.finished: list[tuple[int, int]] = []
        self.tools: list[tuple[str, str]] = []
        self.refusal: Exception | None = None

    async def before_turn(self, request: TurnRequest, used: TokenUsage) -> None:
        if self.refusal:
            raise self.refusal

    async def after_turn(self, record: TurnRecord) -> None:
        self.records.append(record)

    def finished_turn(self, turn: int, attempt: int) -> None:
        self.finished.append((turn, attempt))

    async def after_tool(self, call: ToolCall, outcome: ToolOutcome) -> None:
        self.tools.append((call.id, outcome.content))

    async def chunk(self, kind: ChunkType, content: str, metadata: Mapping[str, Any] | None = None, /) -> None:
        self.chunks.append((kind, content, metadata or {}))


async def echo(call: ToolCall) -> ToolOutcome:
    return ToolOutcome(call_id=call.id, name=call.name, content=f"{call.name} said {call.arguments}")


async def no_wait(seconds: float) -> None:
    return None


async def run(
    provider: ChatProvider,
    watcher: Watcher,
    *,
    call_tool: Any = echo,
    attempt: int = 0,
    resumption: Resumption | None = None,
    **config: Any,
) -> tool_loop.Run:
    agent = AgentConfig(model="m", **config)
    return await tool_loop.run(
        provider,
        agent,
        Task(id="1-0", prompt="hi"),
        [ToolSpec(name="t")],
        call_tool,
        watcher.chunk,
        watcher,
        attempt=attempt,
        resumption=resumption,
        sleep=no_wait,
    )


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


async def test_answer_without_tools(watcher: Watcher) -> None:
    """One model call, its text as chunks and as output, its usage as the run's."""
    result = await run(Playback(answer("hello")), watcher)
    assert (result.output, result.usage, result.turns) == ("hello", USAGE, 1)
    assert watcher.chunks == [(ChunkType.CONTENT, "hello", {})]
    assert [record.outcome for record in watcher.records] == [CallOutcome.COMPLETED]


async def test_tool_outcomes_go_back_in_the_order_of_the_calls(watcher: Watcher) -> None:
    """Calls run at the same time; the model reads their outcomes in its own order, and usage adds up."""
    second_ended = asyncio.Event()

    async def slow_first(call: ToolCall) -> ToolOutcome:
        if call.id == "a":
            await second_ended.wait()
        else:
            second_ended.set()
        return ToolOutcome(call_id=call.id, name=call.name, content=call.id)

    calls = (ToolCall(id="a", name="t", arguments='{"n":1}'), ToolCall(id="b", name="t", arguments='{"n":2}'))
    provider = Playback(answer("let me see", *calls), answer("done"))
    result = await run(provider, watcher, call_tool=slow_first)
    outcomes = provider.requests[1].messages[-1].parts
    assert [part.content for part in outcomes if isinstance(part, ToolOutcome)] == ["a", "b"]
    assert result.output == "done"
    assert result.usage == USAGE + USAGE
    kinds = [kind for kind, _, _ in watcher.chunks]
    assert kinds.count(ChunkType.TOOL_CALL) == kinds.count(ChunkType.TOOL_RESULT) == 2
    call_chunk = next(metadata for kind, _, metadata in watcher.chunks if kind is ChunkType.TOOL_CALL)
    assert call_chunk == {"id": "a", "name": "t", "arguments": {"n": 1}}


async def test_parallel_tools_are_bounded(watcher: Watcher) -> None:
    """Never more tools at once than the agent allows."""
    running, most = 0, 0

    async def counting(call: ToolCall) -> ToolOutcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return ToolOutcome(call_id=call.id, name=call.name)

    calls = [ToolCall(id=str(n), name="t", arguments=f'{{"n":{n}}}') for n in range(10)]
    await run(Playback(answer("", *calls), answer("ok")), watcher, call_tool=counting, max_parallel_tools=3)
    assert most == 3


async def test_calls_are_honoured_whatever_the_stop_reason(watcher: Watcher) -> None:
    """Some servers say "stop" although calls are present."""
    provider = Playback(answer("", ToolCall(id="a", name="t"), stop=StopReason.END_TURN), answer("done"))
    assert (await run(provider, watcher)).output == "done"


async def test_repeated_call_is_answered_by_a_hint(watcher: Watcher) -> None:
    """The same tool with the same arguments, written differently, runs only so often; then the model is told."""
    called = 0

    async def counting(call: ToolCall) -> ToolOutcome:
        nonlocal called
        called += 1
        return await echo(call)

    turns = [
        answer("", ToolCall(id=str(n), name="t", arguments=['{"a":1,"b":2}', '{"b":2,"a":1}'][n % 2])) for n in range(4)
    ]
    provider = Playback(*turns, answer("enough"))
    await run(provider, watcher, call_tool=counting, max_repeated_calls=2)
    assert called == 2
    last = provider.requests[-1].messages[-1].parts[0]
    assert isinstance(last, ToolOutcome)
    assert last.is_error
    assert "use its earlier answer" in last.content


async def test_turn_limit_is_a_clear_error_with_all_usage(watcher: Watcher) -> None:
    """A run that never answers ends, and its error knows what was used."""
    provider = Playback(*[answer("", ToolCall(id="x", name="t", arguments=f"[{n}]")) for n in range(5)])
    with pytest.raises(LimitReached, match="no answer after 3 model calls") as caught:
        await run(provider, watcher, max_turns=3)
    assert caught.value.usage == USAGE + USAGE + USAGE


async def test_token_limit_is_checked_before_each_call(watcher: Watcher) -> None:
    """A run over its limit sends no further model call."""
    provider = Playback(answer("", ToolCall(id="a", name="t")), answer("late"))
    with pytest.raises(LimitReached, match="15 of max_run_tokens 15"):
        await run(provider, watcher, max_run_tokens=15)
    assert len(provider.requests) == 1


async def test_broken_stream_starts_its_turn_over_with_a_higher_attempt(watcher: Watcher) -> None:
    """The broken call has its own record with the tokens it is known to have used; the run's usage counts both."""
    spent = TokenUsage(input_tokens=10, output_tokens=2)
    broken: list[TurnEvent | Exception] = [TextDelta("hal"), UsageUpdate(spent), StreamBroken("cut")]
    provider = Playback(broken, answer("hello"))
    result = await run(provider, watcher)
    assert result.output == "hello"
    assert result.usage == spent + USAGE
    assert [(record.attempt, record.outcome) for record in watcher.records] == [
        (0, CallOutcome.CUT),
        (1, CallOutcome.COMPLETED),
    ]
    assert [request.attempt for request in provider.requests] == [0, 1]


async def test_stream_that_ends_without_its_end_is_broken(watcher: Watcher) -> None:
    """An adapter that stops in silence does not pass for an answer."""
    provider = Playback([TextDelta("hal")])
    with pytest.raises(StreamBroken, match="before the answer did"):
        await run(provider, watcher, max_turn_restarts=2)
    assert len(provider.requests) == 3


async def test_error_before_the_first_chunk_is_not_repeated_here(watcher: Watcher) -> None:
    """The adapter has repeated it already: the loop must not multiply its attempts."""
    provider = Playback([Overloaded("busy")])
    with pytest.raises(Overloaded):
        await run(provider, watcher)
    assert len(provider.requests) == 1
    assert watcher.records[0].outcome is CallOutcome.FAILED


async def test_permanent_error_in_the_middle_ends_the_run(watcher: Watcher) -> None:
    """What cannot succeed is not tried again."""
    provider = Playback([TextDelta("a"), InvalidRequest("no")])
    with pytest.raises(InvalidRequest):
        await run(provider, watcher)
    assert len(provider.requests) == 1


async def test_cancelled_call_has_a_record(watcher: Watcher) -> None:
    """What was produced before a cancel is billed by the vendor, so it is in the books."""
    began = asyncio.Event()

    class Endless(ChatProvider):
        name = "endless"
        closed = False

        async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
            try:
                yield TextDelta("word ")
                began.set()
                await asyncio.Event().wait()
            finally:
                Endless.closed = True

    job = asyncio.create_task(run(Endless(), watcher))
    await asyncio.wait_for(began.wait(), 5)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert Endless.closed
    assert [(record.outcome, record.streamed_chars) for record in watcher.records] == [(CallOutcome.CANCELLED, 5)]


async def test_refusal_and_empty_cut_are_errors_but_a_cut_answer_is_an_answer(watcher: Watcher) -> None:
    """`max_tokens` with text is a result that says so; without text, and refusals, are errors."""
    with pytest.raises(Refused, match="I would rather not"):
        await run(Playback(answer("I would rather not", stop=StopReason.REFUSAL)), watcher)
    with pytest.raises(LimitReached, match="used up before the answer began"):
        await run(Playback(answer("", stop=StopReason.MAX_TOKENS)), watcher)
    cut = await run(Playback(answer("half an", stop=StopReason.MAX_TOKENS)), watcher)
    assert (cut.output, cut.stop_reason) == ("half an", StopReason.MAX_TOKENS)


async def test_paused_turn_is_continued(watcher: Watcher) -> None:
    """A vendor's pause sends the conversation again; the text of both halves is the answer."""
    provider = Playback(answer("first, ", stop=StopReason.PAUSE), answer("second"))
    assert (await run(provider, watcher)).output == "first, second"
    assert provider.requests[1].messages[-1].role is Role.ASSISTANT


async def test_thinking_is_streamed_apart(watcher: Watcher) -> None:
    """Reasoning has its own kind of chunk and is no part of the output."""
    provider = Playback([ThinkingDelta("hm"), *answer("yes")])
    assert (await run(provider, watcher)).output == "yes"
    assert watcher.chunks[0] == (ChunkType.THINKING, "hm", {})


async def test_observer_can_keep_a_call_from_being_sent(watcher: Watcher) -> None:
    """A refused call is not sent and has no record."""
    watcher.refusal = ProviderError("no budget")
    provider = Playback(answer("never"))
    with pytest.raises(ProviderError, match="no budget"):
        await run(provider, watcher)
    assert provider.requests == []
    assert watcher.records == []


async def test_history_comes_before_the_prompt(watcher: Watcher) -> None:
    """Plain and structured history messages both work; a wrong one is refused with its position."""
    provider = Playback(answer("ok"))
    history = ({"role": "user", "content": "one"}, {"role": "assistant", "parts": [{"type": "text", "text": "two"}]})
    task = Task(id="1-0", prompt="three", history=history)
    await tool_loop.run(provider, AgentConfig(model="m"), task, [], echo, watcher.chunk)
    assert [message.text for message in provider.requests[0].messages] == ["one", "two", "three"]
    bad = Task(id="1-0", prompt="x", history=({"role": "narrator", "content": "no"},))
    with pytest.raises(InvalidRequest, match=r"history\[0\]"):
        await tool_loop.run(provider, AgentConfig(model="m"), bad, [], echo, watcher.chunk)


def finished(text: str, *calls: ToolCall, **known: Any) -> FinishedTurn:
    """A turn that an earlier run has been through."""
    end = answer(text, *calls)[-1]
    assert isinstance(end, TurnEnd)
    return FinishedTurn(attempt=3, end=end, **known)


async def test_a_resumed_run_repeats_neither_turns_nor_tools(watcher: Watcher) -> None:
    """The model is asked for what comes next, with the old answers before it; only the tool without an outcome is
    called; consumers are told nothing twice; tokens of before count."""
    calls = (ToolCall(id="a", name="t", arguments='{"n":1}'), ToolCall(id="b", name="t", arguments='{"n":2}'))
    known = {"a": ToolOutcome(call_id="a", name="t", content="from before")}
    turn = finished("let me see", *calls, outcomes=known, announced=frozenset({"a", "b"}))
    provider = Playback(answer("done"))
    result = await run(provider, watcher, attempt=10, resumption=Resumption(turns=(turn,), used=USAGE))
    (request,) = provider.requests
    assert (request.turn, request.attempt) == (1, 10)
    assert [part.content for part in request.messages[-1].parts if isinstance(part, ToolOutcome)] == [
        "from before",
        't said {"n":2}',
    ]
    assert watcher.finished == [(0, 3)]
    assert watcher.tools == [("b", 't said {"n":2}')]
    assert [(kind, text) for kind, text, _ in watcher.chunks] == [
        (ChunkType.TOOL_RESULT, 't said {"n":2}'),
        (ChunkType.CONTENT, "done"),
    ]
    assert (result.output, result.usage, result.turns) == ("done", USAGE + USAGE, 2)


async def test_a_resumed_run_shows_what_nobody_has_seen(watcher: Watcher) -> None:
    """For a new stream the finished turns are told again, in their order, without asking the model."""
    call = ToolCall(id="a", name="t", arguments="{}")
    known = {"a": ToolOutcome(call_id="a", name="t", content="from before")}
    turn = finished("let me see", call, outcomes=known, is_shown=False)
    await run(Playback(answer("done")), watcher, resumption=Resumption(turns=(turn,)))
    assert [(kind, text) for kind, text, _ in watcher.chunks] == [
        (ChunkType.CONTENT, "let me see"),
        (ChunkType.TOOL_CALL, "t"),
        (ChunkType.TOOL_RESULT, "from before"),
        (ChunkType.CONTENT, "done"),
    ]
    assert watcher.tools == []
