"""One run that takes part in a conversation: what it begins with, what is said in it, and what is kept of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from providers import (
    ChunkFn,
    Message,
    ProviderError,
    Role,
    StopReason,
    TextPart,
    ToolCall,
    ToolOutcome,
    TurnRequest,
    conversation,
)
from providers.tool_loop import FinishedTurn, LoopObserver, TurnRecord
from providers.turn_routing import Target
from queue_backends import CallOutcome, ChunkType, LogRecord, Spent, Task, TokenUsage
from worker.agents.model import Memory
from worker.recall import Past
from worker.sessions.conversation_bounds import bounded
from worker.sessions.conversation_log import Exchange, sound
from worker.sessions.conversations import Conversations
from worker.sessions.told import Told

OWN_HISTORY = "own_history"
"""Meta field: its caller keeps the conversation, too. The run begins with the task's `history` alone, which is not kept
again."""


class _Turn(Struct):
    """A turn that has ended, and what its tools said."""

    message: Message
    is_paused: bool = False
    outcomes: dict[str, ToolOutcome] = {}


class ConversationRun:
    """What a run of a task with a `conversation_id` adds to it. Kept in memory; written with the run's outcome."""

    def __init__(self, conversations: Conversations, task: Task, *, again: int) -> None:
        """`again` is higher for a later delivery of the same task."""
        self.task = task
        """The task as its run gets it: with the conversation in its `history`, once that is loaded."""
        self._conversations = conversations
        self._given = task
        self._again = again
        self._began_at = time.time()
        self._turns: dict[int, _Turn] = {}
        self._turn = 0
        self._has_begun = False
        self._told: Told | None = None
        """Of an agent plugin's run."""
        self._said: list[str] = []
        """The text of the turn that is being streamed."""
        self._loose: list[tuple[ToolCall, ToolOutcome]] = []
        """Tool calls of a provider that runs whole tasks: its turns are not known."""

    async def load(self, memory: Memory, *, agent: str) -> None:
        """Read the conversation. Waits while the store is away; raises other `QueueError`s."""
        task = self._given
        if task.meta.get(OWN_HISTORY):
            return
        recollection = await self._conversations.load(task, memory, agent=agent)
        if recollection.messages:
            messages = sound([*recollection.messages, *conversation(task.history, "")])
            self.task = replace(task, history=tuple(msgspec.to_builtins(message) for message in messages))

    def begin(
        self, past: Past, chunk_fn: ChunkFn, observer: LoopObserver, *, is_plugin: bool = False
    ) -> tuple[ChunkFn, LoopObserver]:
        """The run begins, or goes on from its `past`: what it shall write its chunks to, and tell of its turns. Turns
        of a plugin's own model calls are not the conversation's: of it counts what consumers see."""
        self._has_begun = True
        if is_plugin:
            self._told = Told()
        else:
            self._take_over(past)
        return _Listening(self, chunk_fn), _Noting(self, observer)

    def _take_over(self, past: Past) -> None:
        for number, finished in enumerate(past.resumption.turns):
            self._turns[number] = _turn_of(finished)

    # What is said

    def said(self, kind: ChunkType, content: str, metadata: Mapping[str, Any]) -> None:
        """A piece of the answer."""
        if self._told is not None:
            self._told.hear(kind, content, metadata)
        elif kind is ChunkType.CONTENT:
            self._said.append(content)

    def turn_begins(self, turn: int) -> None:
        """What follows belongs to this turn."""
        self._turn = turn
        self._said.clear()

    def turn_ended(self, record: TurnRecord) -> None:
        """A model call has ended, one way or another."""
        if record.outcome is CallOutcome.COMPLETED and record.end is not None:
            self._turns[record.turn] = _Turn(record.end.message, record.end.stop_reason is StopReason.PAUSE, {})
            self._said.clear()

    def tool_ended(self, call: ToolCall, outcome: ToolOutcome) -> None:
        """A tool has answered."""
        turn = self._turns.get(self._turn)
        if turn is None:
            self._loose.append((call, outcome))
        else:
            turn.outcomes[call.id] = outcome

    # What is kept

    def records(
        self,
        *,
        output: str = "",
        error: str = "",
        error_type: str = "",
        past: Past | None = None,
        spent: Spent | None = None,
    ) -> tuple[LogRecord, ...]:
        """What to store with the run's outcome: one record, whatever the run came to."""
        if not self._has_begun and past is not None and not past.plugin_entries:
            self._take_over(past)
        exchange = Exchange(
            task_id=self._given.id,
            asked=self._asked(),
            answered=tuple(self._answered(output, is_cut=bool(error))),
            error=error,
            error_type=error_type,
            agent=self._given.agent,
            began_at=self._began_at,
            ended_at=time.time(),
            usage=spent.usage if spent is not None else None,
            cost_usd=spent.cost_usd if spent is not None else None,
        )
        return (self._conversations.exchange_record(self._given, bounded(exchange), again=self._again),)

    def _asked(self) -> tuple[Message, ...]:
        given = self._given
        if not given.meta.get(OWN_HISTORY):
            with contextlib.suppress(ProviderError):  # of a history that cannot be read; that is why the run has failed
                return conversation(given.history, given.prompt)
        return conversation((), given.prompt)

    def _answered(self, output: str, *, is_cut: bool) -> list[Message]:
        if self._told is not None:
            return self._told.messages(output)
        messages = self._finished_turns()
        for call, outcome in self._loose:
            messages.append(Message(role=Role.ASSISTANT, parts=(call,)))
            messages.append(Message(role=Role.USER, parts=(outcome,)))
        if is_cut and (text := "".join(self._said)):
            messages.append(Message.assistant(text))
        elif output and (self._loose or not self._turns):
            messages.append(Message.assistant(output))
        return messages

    def _finished_turns(self) -> list[Message]:
        """Turns that count: an answer that had to be repaired is left out, one with pauses is one message."""
        messages: list[Message] = []
        paused: tuple[Any, ...] = ()
        last = max(self._turns, default=-1)
        for number, turn in sorted(self._turns.items()):
            parts = (*paused, *turn.message.parts)
            paused = ()
            if turn.message.tool_calls:
                messages.append(Message(role=Role.ASSISTANT, parts=parts))
                outcomes = [turn.outcomes[each.id] for each in turn.message.tool_calls if each.id in turn.outcomes]
                if outcomes:
                    messages.append(Message(role=Role.USER, parts=tuple(outcomes)))
            elif turn.is_paused and number != last:
                paused = parts
            elif number == last and any(not isinstance(part, TextPart) or part.text for part in parts):
                messages.append(Message(role=Role.ASSISTANT, parts=parts))
        return messages


def _turn_of(finished: FinishedTurn) -> _Turn:
    end = finished.end
    return _Turn(end.message, end.stop_reason is StopReason.PAUSE, dict(finished.outcomes))


class _Listening:
    """A chunk function that lets the conversation hear what the consumers hear."""

    def __init__(self, run: ConversationRun, chunk_fn: ChunkFn) -> None:
        self._run = run
        self._chunk_fn = chunk_fn

    async def __call__(self, kind: ChunkType, content: str, metadata: Mapping[str, Any] | None = None, /) -> None:
        self._run.said(kind, content, metadata or {})
        await self._chunk_fn(kind, content, metadata)


class _Noting:
    """A `LoopObserver` that tells another one first, and then the conversation."""

    def __init__(self, run: ConversationRun, observer: LoopObserver) -> None:
        self._run = run
        self._observer = observer

    def finished_turn(self, turn: int, attempt: int) -> None:
        self._run.turn_begins(turn)
        self._observer.finished_turn(turn, attempt)

    def goes_to(self, request: TurnRequest, target: Target) -> None:
        self._observer.goes_to(request, target)

    def speaks(self, request: TurnRequest) -> None:
        self._observer.speaks(request)

    async def before_turn(self, request: TurnRequest, used: TokenUsage) -> None:
        self._run.turn_begins(request.turn)
        await self._observer.before_turn(request, used)

    async def after_turn(self, record: TurnRecord) -> None:
        self._run.turn_ended(record)
        await self._observer.after_turn(record)

    async def after_tool(self, call: ToolCall, outcome: ToolOutcome) -> None:
        self._run.tool_ended(call, outcome)
        await self._observer.after_tool(call, outcome)
