"""The tool-use loop: ask the model, call the tools it wants, tell it what they said, until it answers.

It knows no vendor and no queue. What happens around a turn (budgets, journal, usage) is a `LoopObserver`'s business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from providers.decoding import UNREADABLE
from providers.direct_text import hand_over_text
from providers.errors import BadResponse, LimitReached, ProviderError, RateLimited, Refused, StreamBroken
from providers.interfaces import CallTool, ChatProvider, ChunkFn
from providers.messages import (
    AgentConfig,
    LimitsSeen,
    Message,
    Role,
    StopReason,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ThinkingPart,
    ToolCall,
    ToolOutcome,
    ToolSpec,
    TurnEnd,
    TurnRequest,
    UsageUpdate,
    conversation,
)
from providers.model_call import OpenCall, TurnRecord
from providers.retry import is_gated
from providers.routed_turn import Race, RoutedTurn, restart_delay_s
from providers.structured import Repairs, prompted
from providers.turn_routing import Target, TurnRouter
from queue_backends import CallOutcome, ChunkType, QueueError, Task, TokenUsage

__all__ = [
    "FinishedTurn",
    "LoopObserver",
    "Resumption",
    "Run",
    "Sleep",
    "TurnRecord",
    "arguments_of",
    "canonical",
    "goes_on",
    "run",
]


# By names of the module: Python 3.11 takes ten times as long to find an enum's member (0.11 µs, measured).
_CONTENT, _THINKING = ChunkType.CONTENT, ChunkType.THINKING
_COMPLETED = CallOutcome.COMPLETED
_NO_USAGE = TokenUsage()
_PAUSE, _REFUSAL, _MAX_TOKENS = StopReason.PAUSE, StopReason.REFUSAL, StopReason.MAX_TOKENS


class FinishedTurn(Struct, frozen=True, kw_only=True):
    """A turn that an earlier run of the task has been through: its model call is not repeated."""

    attempt: int
    end: TurnEnd
    outcomes: Mapping[str, ToolOutcome] = {}
    """By call id: calls that are done, and not repeated. Others are made now."""
    announced: frozenset[str] = frozenset()
    """Ids of calls whose TOOL_CALL chunk is out."""
    is_shown: bool = True
    """Whether consumers have seen it; if not, its chunks are written now."""


class Resumption(Struct, frozen=True, kw_only=True):
    """Where a run goes on that somebody else has begun."""

    turns: tuple[FinishedTurn, ...] = ()
    used: TokenUsage = TokenUsage()
    """What the task has used so far, in unfinished turns, too."""


class LoopObserver(Protocol):
    """Told of each turn, before and after, and of each tool's outcome."""

    def finished_turn(self, turn: int, attempt: int) -> None:
        """A turn that an earlier run has finished is gone through again; chunks that follow belong to it."""
        ...

    def goes_to(self, request: TurnRequest, target: Target) -> None:
        """Only in runs with a `TurnRouter`: this call, which is about to stand before `before_turn`, goes there."""
        ...

    def speaks(self, request: TurnRequest) -> None:
        """Only where two calls of a turn run beside each other: chunks that follow belong to this one."""
        ...

    async def before_turn(self, request: TurnRequest, used: TokenUsage) -> None:
        """A model call is about to be sent; `used` is what the run has used. Raising keeps it from being sent."""
        ...

    async def after_turn(self, record: TurnRecord) -> None:
        """A model call has ended; nothing follows from it until this returns. Must not wait when it was cancelled."""
        ...

    async def after_tool(self, call: ToolCall, outcome: ToolOutcome) -> None:
        """A tool was called, and consumers were told; the model is not asked again until this returns."""
        ...


class Run(Struct, frozen=True, kw_only=True):
    """How a run ended."""

    output: str
    usage: TokenUsage
    turns: int
    messages: tuple[Message, ...]
    """The whole conversation, the final answer included."""
    stop_reason: StopReason = StopReason.END_TURN
    """`MAX_TOKENS` means that the answer was cut there."""
    structured: Any = None
    """What the answer holds, where `config.output_schema` says what that has to be."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The calls of `config.client_tools` that the run ended with; then `stop_reason` is `TOOL_USE`."""


Sleep = Callable[[float], Awaitable[None]]


def run(
    provider: ChatProvider | None,
    config: AgentConfig,
    task: Task,
    tools: Sequence[ToolSpec],
    call_tool: CallTool,
    chunk_fn: ChunkFn,
    observer: LoopObserver | None = None,
    *,
    attempt: int = 0,
    resumption: Resumption | None = None,
    sleep: Sleep = asyncio.sleep,
    router: TurnRouter | None = None,
) -> Coroutine[Any, Any, Run]:
    """Run `task` to its answer. With a `router` each call goes where it says; without one, to the `provider`.

    `attempt` numbers this try at the task's turns; a turn that starts over counts on from there. With a `resumption`,
    finished turns and tool calls are taken from it instead of being repeated. Raises a `ProviderError` whose `usage` is
    the whole run's.
    """
    loop = _Loop(provider, config, task, tuple(tools), call_tool, chunk_fn, observer, attempt, sleep)
    if resumption is not None:
        loop.finished, loop.used = resumption.turns, resumption.used
    loop.router = router
    return loop.run()


class _Loop:
    """The state of one run."""

    __slots__ = (
        "attempt",
        "call_tool",
        "calls_seen",
        "chunk_fn",
        "config",
        "finished",
        "observer",
        "output",
        "provider",
        "repairs",
        "router",
        "sleep",
        "task",
        "tools",
        "used",
    )

    def __init__(
        self,
        provider: ChatProvider | None,
        config: AgentConfig,
        task: Task,
        tools: tuple[ToolSpec, ...],
        call_tool: CallTool,
        chunk_fn: ChunkFn,
        observer: LoopObserver | None,
        attempt: int,
        sleep: Sleep,
    ) -> None:
        self.provider = provider
        self.config = config
        self.task = task
        self.tools = tools
        self.call_tool = call_tool
        self.chunk_fn = chunk_fn
        self.observer = observer
        self.attempt = attempt
        self.sleep = sleep
        self.used = _NO_USAGE
        self.finished: tuple[FinishedTurn, ...] = ()
        self.calls_seen: dict[tuple[str, str], int] | None = None
        """How often each tool was called with the same arguments; none yet, as in most runs."""
        self.output: list[str] = []
        """The texts of the answer so far: several if the vendor paused."""
        self.repairs: Repairs | None = None
        self.router: TurnRouter | None = None

    async def run(self) -> Run:
        try:
            messages = conversation(self.task.history, self.task.prompt)
            output = self.output
            if self.config.output_schema is not None:
                self.repairs = Repairs(self.config)
            for turn in range(self.config.max_turns):
                done = self.finished[turn] if turn < len(self.finished) else None
                end = await self.again(turn, done) if done else await self.turn(turn, messages)
                messages += (end.message,)
                output.append(end.message.text)
                if end.message.calls_tools:
                    calls = end.message.tool_calls
                    if self.config.client_tools and (handed := self.for_client(calls)):
                        return await self.handed_over(messages, handed, done, turn + 1)
                    messages += (Message(role=Role.USER, parts=await self.answer(calls, done)),)
                    output.clear()
                elif end.stop_reason is not _PAUSE:
                    self.check_end(end)
                    answer = "".join(output)
                    if self.repairs is None or (repair := self.repairs.next_message(answer, end.stop_reason)) is None:
                        return self.ended(messages, answer, turn + 1, end.stop_reason)
                    messages += (repair,)
                    output.clear()
            raise LimitReached(
                f"no answer after {self.config.max_turns} model calls: raise max_turns, or give the agent a smaller "
                "task"
            )
        except ProviderError as error:
            error.usage = self.used
            raise

    def ended(self, messages: tuple[Message, ...], output: str, turns: int, stop_reason: StopReason) -> Run:
        return Run(
            output=output,
            usage=self.used,
            turns=turns,
            messages=messages,
            stop_reason=stop_reason,
            structured=self.repairs.value(output) if self.repairs is not None else None,
        )

    def for_client(self, calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
        """Those of the calls that nobody here carries out."""
        names = {tool.name for tool in self.config.client_tools}
        return tuple(call for call in calls if call.name in names)

    async def handed_over(
        self, messages: tuple[Message, ...], handed: Sequence[ToolCall], done: FinishedTurn | None, turns: int
    ) -> Run:
        """The run ends with calls for the client. Other calls of the same turn are carried out before, so that whoever
        goes on with the conversation has their outcomes."""
        if own := [call for call in messages[-1].tool_calls if call not in handed]:
            messages += (Message(role=Role.USER, parts=await self.answer(own, done)),)
        for call in handed:
            named = {"id": call.id, "name": call.name, "arguments": arguments_of(call), "is_client": True}
            await self.chunk_fn(ChunkType.TOOL_CALL, call.name, named)
        return Run(
            output="".join(self.output),
            usage=self.used,
            turns=turns,
            messages=messages,
            stop_reason=StopReason.TOOL_USE,
            tool_calls=tuple(handed),
        )

    def check_end(self, end: TurnEnd) -> None:
        if end.stop_reason is _REFUSAL:
            raise Refused(f"the model declined to answer: {end.message.text or 'it gave no reason'}")
        if end.stop_reason is _MAX_TOKENS and not end.message.text:
            raise LimitReached(
                f"max_tokens ({self.config.max_tokens}) was used up before the answer began: raise it, or lower the "
                "thinking budget"
            )

    async def again(self, turn: int, done: FinishedTurn) -> TurnEnd:
        """A turn that was paid for before; consumers see it unless they have."""
        if self.observer is not None:
            self.observer.finished_turn(turn, done.attempt)
        if not done.is_shown:
            for part in done.end.message.parts:
                if isinstance(part, TextPart):
                    await self.chunk_fn(ChunkType.CONTENT, part.text)
                elif isinstance(part, ThinkingPart):
                    await self.chunk_fn(ChunkType.THINKING, part.text)
        return done.end

    async def turn(self, turn: int, messages: tuple[Message, ...]) -> TurnEnd:
        """One turn, started over when its stream breaks: what it had streamed is superseded by a higher attempt."""
        if self.router is not None:
            return await RoutedTurn(self, self.router, turn, messages).run()
        provider = self.provider
        assert provider is not None  # noqa: S101 - there is one where nobody chooses
        restart = 0
        while True:
            request = self.request(turn, messages, self.attempt + restart, None)
            if self.repairs is not None:
                request = prompted(provider, request)
            await self.before(request)
            call = OpenCall(request, provider)
            try:
                return await self.stream(call)
            except ProviderError as error:
                # Before its first chunk the adapter has already repeated what is worth repeating.
                worthwhile = error.retryable and (call.streamed_chars or isinstance(error, StreamBroken | BadResponse))
                waits_in_gate = isinstance(error, RateLimited) and is_gated.get()
                if restart == self.config.max_turn_restarts or not (worthwhile or waits_in_gate):
                    raise
                if not waits_in_gate:
                    await self.sleep(restart_delay_s(restart, error))
            restart += 1

    def request(self, turn: int, messages: tuple[Message, ...], attempt: int, target: Target | None) -> TurnRequest:
        request = TurnRequest(
            config=self.config if target is None else target.config,
            messages=messages,
            tools=self.tools,
            task_id=self.task.id,
            tenant=self.task.tenant,
            turn=turn,
            attempt=attempt,
        )
        return request if self.repairs is None or target is None else prompted(target.provider, request)

    # What a turn with a choice needs

    def call(self, request: TurnRequest, target: Target, race: Race | None) -> OpenCall:
        call = OpenCall(request, target.provider)
        call.target, call.race = target, race
        return call

    def goes_to(self, request: TurnRequest, target: Target) -> None:
        if self.observer is not None:
            self.observer.goes_to(request, target)

    def speaks(self, request: TurnRequest) -> None:
        if self.observer is not None:
            self.observer.speaks(request)

    # One call

    def before(self, request: TurnRequest) -> Awaitable[None]:
        limit = self.config.max_run_tokens
        if limit is not None and self.used.total_tokens >= limit:
            raise LimitReached(
                f"the run has used {self.used.total_tokens} of max_run_tokens {limit}: raise it, or split the task"
            )
        if is_gated.get():  # to set it costs a copy of the task's context
            is_gated.set(False)
        return _nothing() if self.observer is None else self.observer.before_turn(request, self.used)

    async def stream(self, call: OpenCall) -> TurnEnd:
        """One model call: its chunks go out, and its record goes to the observer, however it ends."""
        try:
            events = call.provider.stream_turn(call.request)
            if call.race is None:
                hand_over_text(events, call, self.chunk_fn)
            try:
                async for event in events:
                    if call.race is not None:
                        await call.race.heard(call, event)
                    if type(event) is TextDelta:
                        call.saw_chunk(event.text)
                        await self.chunk_fn(_CONTENT, event.text)
                    elif type(event) is ThinkingDelta:
                        call.saw_chunk(event.text)
                        await self.chunk_fn(_THINKING, event.text)
                    elif type(event) is UsageUpdate:
                        call.usage = event.usage
                    elif type(event) is TurnEnd:
                        call.saw_end(event)
                    elif type(event) is LimitsSeen:
                        call.limits = event.limits
            except BaseException:
                # Adapters write async generators; the interface only promises an iterator, which has nothing to close.
                if (close := getattr(events, "aclose", None)) is not None:
                    await close()
                raise
        except ProviderError as error:
            call.failed(error)
            cut = isinstance(error, StreamBroken) or call.streamed_chars > 0
            await self.after(call, CallOutcome.CUT if cut else CallOutcome.FAILED, str(error))
            raise
        except asyncio.CancelledError:
            await self.after(call, CallOutcome.CANCELLED, "cancelled")
            raise
        except QueueError:  # of a chunk that could not be published: the call's record could not be stored either
            raise
        except Exception as error:  # an adapter is anybody's code: its call was sent all the same, and is paid for
            outcome = CallOutcome.CUT if call.streamed_chars else CallOutcome.FAILED
            await self.after(call, outcome, f"{type(error).__name__}: {error}")
            raise
        if call.end is None:
            broken = StreamBroken(f"{call.provider.name}: the stream ended before the answer did", usage=call.usage)
            await self.after(call, CallOutcome.CUT, str(broken))
            raise broken
        call.usage = call.end.usage
        await self.after(call, _COMPLETED, "")
        return call.end

    def after(self, call: OpenCall, outcome: CallOutcome, error: str) -> Awaitable[None]:
        self.used = self.used + call.usage
        if self.observer is None:
            return _nothing()
        is_last = outcome is _COMPLETED and call.end is not None and not self.goes_on(call.end)
        return self.observer.after_turn(call.record(outcome, error, is_last=is_last))

    def goes_on(self, end: TurnEnd) -> bool:
        """Whether something follows: another turn, or tools of ours."""
        if self.config.client_tools and (handed := self.for_client(end.message.tool_calls)):
            return len(handed) < len(end.message.tool_calls)
        if (follows := goes_on(end)) or self.repairs is None:
            return follows
        return self.repairs.follows("".join([*self.output, end.message.text]), end.stop_reason)

    async def answer(self, calls: Sequence[ToolCall], done: FinishedTurn | None) -> tuple[ToolOutcome, ...]:
        """Call the tools at the same time, as many as allowed, and answer in the order of the calls."""
        gate = asyncio.Semaphore(self.config.max_parallel_tools)

        async def one(call: ToolCall) -> ToolOutcome:
            async with gate:
                return await self.answer_one(call, done)

        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(one(call), name=f"tool {call.name} of {self.task.id}") for call in calls]
        except BaseExceptionGroup as failed:  # tools do not raise; what comes out of a chunk or a lost lease does
            raise failed.exceptions[0] from failed
        return tuple(task.result() for task in running)

    async def answer_one(self, call: ToolCall, done: FinishedTurn | None) -> ToolOutcome:
        arguments = arguments_of(call)
        known = done.outcomes.get(call.id) if done else None
        if done is None or call.id not in done.announced:
            named = {"id": call.id, "name": call.name, "arguments": arguments}
            await self.chunk_fn(ChunkType.TOOL_CALL, call.name, named)
        key = (call.name, canonical(arguments))
        self.calls_seen = self.calls_seen or {}
        seen = self.calls_seen[key] = self.calls_seen.get(key, 0) + 1
        if known is not None:
            outcome = known
        elif seen > self.config.max_repeated_calls:
            outcome = ToolOutcome(
                call_id=call.id,
                name=call.name,
                content=f"not called: this is call {seen} of {call.name} with these arguments; use its earlier answer",
                is_error=True,
            )
        else:
            outcome = await self.call_tool(call)
        if known is None or (done and not done.is_shown):
            said = {"id": call.id, "name": call.name, "is_error": outcome.is_error}
            await self.chunk_fn(ChunkType.TOOL_RESULT, outcome.content, said)
        if known is None and self.observer is not None:
            await self.observer.after_tool(call, outcome)
        return outcome


async def _nothing() -> None:
    """Nobody wants to hear of it."""


def goes_on(end: TurnEnd) -> bool:
    """Whether another turn follows, whatever the answer says. Vendors' stop reasons are not to be relied on where calls
    are present: some servers say "stop" then."""
    return end.message.calls_tools or end.stop_reason is _PAUSE


def arguments_of(call: ToolCall) -> Any:
    """The arguments as consumers see them: the object, or the model's own text if it is no JSON."""
    try:
        return msgspec.json.decode(call.arguments or "{}")
    except UNREADABLE:
        return call.arguments


def canonical(arguments: Any) -> str:
    """A call's arguments as one text, whatever the order in which they were written."""
    return msgspec.json.encode(arguments, order="sorted").decode()
