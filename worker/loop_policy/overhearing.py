"""What was said in a run so far, for those who are asked for advice. Kept in memory alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from providers import Message, ProviderError, Role, TextPart, ToolCall, ToolOutcome, TurnRequest, conversation
from providers.tool_loop import FinishedTurn, LoopObserver, TurnRecord
from providers.turn_routing import Target
from queue_backends import CallOutcome, Task, TokenUsage


class Overheard:
    """The conversation of one run: what it began with, its turns, and what its tools said."""

    def __init__(self, task: Task, finished: Sequence[FinishedTurn]) -> None:
        self._task = task
        self._finished = finished
        self._messages: list[Message] = []
        self._outcomes: dict[str, ToolOutcome] = {}
        """By call id."""
        self._loose: list[tuple[ToolCall, ToolOutcome]] = []
        """Of a run whose turns are not known."""

    def again(self, turn: int) -> None:
        """A turn that an earlier delivery has been through."""
        if turn < len(self._finished):
            self._messages.append(self._finished[turn].end.message)
            self._outcomes.update(self._finished[turn].outcomes)

    def answered(self, message: Message) -> None:
        """A turn has ended."""
        self._messages.append(message)

    def tool_ended(self, call: ToolCall, outcome: ToolOutcome) -> None:
        """A tool has answered."""
        self._outcomes[call.id] = outcome
        if not any(call.id == each.id for message in self._messages for each in message.tool_calls):
            self._loose.append((call, outcome))

    def entries(self) -> list[str]:
        """One text for each message, and for each tool call with its answer; the latest last. Calls that have no answer
        yet are left out."""
        try:
            begun = conversation(self._task.history, self._task.prompt)
        except ProviderError:
            begun = (Message.user(self._task.prompt),)
        found = [text for message in begun for text in self._told(message)]
        found += [text for message in self._messages for text in self._told(message)]
        return found + [_tool_text(call, outcome) for call, outcome in self._loose]

    def _told(self, message: Message) -> Iterator[str]:
        who = "user" if message.role is Role.USER else "agent"
        for part in message.parts:
            if isinstance(part, TextPart) and part.text.strip():
                yield f"[{who}] {part.text.strip()}"
            elif isinstance(part, ToolCall) and (outcome := self._outcomes.get(part.id)) is not None:
                yield _tool_text(part, outcome)


class Overhearing:
    """A run's observer, and beside it somebody who listens."""

    def __init__(self, observer: LoopObserver, overheard: Overheard) -> None:
        self._observer = observer
        self._overheard = overheard

    def finished_turn(self, turn: int, attempt: int) -> None:
        """As `LoopObserver`."""
        self._observer.finished_turn(turn, attempt)
        self._overheard.again(turn)

    def goes_to(self, request: TurnRequest, target: Target) -> None:
        """As `LoopObserver`."""
        self._observer.goes_to(request, target)

    def speaks(self, request: TurnRequest) -> None:
        """As `LoopObserver`."""
        self._observer.speaks(request)

    async def before_turn(self, request: TurnRequest, used: TokenUsage) -> None:
        """As `LoopObserver`."""
        await self._observer.before_turn(request, used)

    async def after_turn(self, record: TurnRecord) -> None:
        """As `LoopObserver`."""
        await self._observer.after_turn(record)
        if record.outcome is CallOutcome.COMPLETED and record.end is not None:
            self._overheard.answered(record.end.message)

    async def after_tool(self, call: ToolCall, outcome: ToolOutcome) -> None:
        """As `LoopObserver`."""
        await self._observer.after_tool(call, outcome)


def _tool_text(call: ToolCall, outcome: ToolOutcome) -> str:
    failed = " (it failed)" if outcome.is_error else ""
    return f"[tool {call.name}] input: {call.arguments or '{}'} -> output{failed}: {outcome.content}"
