"""The account of one message: each model call has a book of its own, and all add up in the run's."""

from __future__ import annotations

from msgspec.structs import replace

from providers import AgentConfig, LimitReached, ToolCall, ToolOutcome, TurnRequest
from providers.tool_loop import TurnRecord
from providers.turn_routing import Target
from queue_backends import Delivery, TokenUsage
from worker.agent_plugins.call_output import CallOutput
from worker.agent_plugins.steps import Step, Steps
from worker.parking import Parking
from worker.part_chunks import PartChunks
from worker.recall import Past
from worker.streaming import ChunkWriter
from worker.surroundings import Surroundings
from worker.teams.marks import marks_of
from worker.tool_book import ToolBook
from worker.turn_book import TurnBook, billed


class MessageBook:
    """The run's own book, and those of its steps."""

    def __init__(
        self, around: Surroundings, delivery: Delivery, run: TurnBook, chunks: ChunkWriter, parking: Parking
    ) -> None:
        self.run = run
        self.parking = parking
        self.chunks = chunks
        self._around = around
        self._delivery = delivery
        self._costs: dict[int, float | None] = {}

    def turn_book(self, step: Step, config: AgentConfig, provider: str, past: Past) -> TurnBook:
        """A book for one model call, which begins with nothing spent."""
        task = self._delivery.task
        marks = marks_of(task.meta)
        metrics = self._around.metrics.agent(task.agent, self._around.role if marks is None else marks.role)
        own = Past(interrupted=past.interrupted)
        chunks = PartChunks(self.chunks, step.first_turn)
        book = TurnBook(self._around, self._delivery, config, provider, chunks, metrics, own)
        book.budgets = self.run.budgets
        return book

    def tool_book(self, step: Step, interrupted: frozenset[str]) -> ToolBook:
        """A book for one tool call that the plugin itself makes."""
        chunks = PartChunks(self.chunks, step.first_turn)
        return ToolBook(self._around.journal, self._delivery, chunks, Past(interrupted=interrupted))

    def check_room(self) -> None:
        """Raises `LimitReached` if the run has used all the tokens that it may."""
        limit = self.run.config.max_run_tokens
        if limit is not None and self.run.usage.total_tokens >= limit:
            raise LimitReached(
                f"the run has used {self.run.usage.total_tokens} of max_run_tokens {limit}: raise it, or split the task"
            )

    def charge(self, step: Step, book: TurnBook, record: TurnRecord) -> None:
        """A call of a step has ended."""
        usage, _ = billed(record)
        before = self._costs.get(step.number, 0.0)
        self._costs[step.number] = book.cost_usd
        self.run.charge(usage, None if book.cost_usd is None or before is None else book.cost_usd - before)

    def used_attempt(self, attempt: int) -> None:
        """A call has this attempt: whoever goes on numbers from the next one."""
        self.run.next_attempt = max(self.run.next_attempt, attempt + 1)


class StepObserver:
    """The `LoopObserver` of one model call of a plugin: its turns become turns of the task."""

    def __init__(self, step: Step, steps: Steps, all_books: MessageBook, own: TurnBook, output: CallOutput) -> None:
        self._step = step
        self._steps = steps
        self._all = all_books
        self._own = own
        self._output = output

    def finished_turn(self, turn: int, attempt: int) -> None:
        """An earlier delivery has been through this turn."""
        self._own.finished_turn(self._step.first_turn + turn, attempt)
        self._output.turn_begins(turn, self._all.chunks.delivery.next_attempt)

    def goes_to(self, request: TurnRequest, target: Target) -> None:
        self._own.goes_to(self._of_task(request), target)

    def speaks(self, request: TurnRequest) -> None:
        """Of two calls of a turn this one is heard."""
        self._own.speaks(self._of_task(request))
        self._output.turn_begins(request.turn, request.attempt)

    async def before_turn(self, request: TurnRequest, used: TokenUsage) -> None:
        """Raises `LimitReached`, and what the gates raise."""
        self._all.check_room()
        await self._own.before_turn(self._of_task(request), self._all.run.usage)
        self._all.parking.begun()
        self._all.used_attempt(request.attempt)
        if self._output.is_again(request.turn, request.attempt):
            await self._output.restarted()
        self._output.turn_begins(request.turn, request.attempt)

    async def after_turn(self, record: TurnRecord) -> None:
        """What the turn said goes out, and its answer is stored in the same step."""
        try:
            await self._store_turn(record)
        finally:
            self._all.parking.ended()

    async def _store_turn(self, record: TurnRecord) -> None:
        own = replace(record, turn=self._step.first_turn + record.turn, is_last=False)
        is_answered = record.end is not None
        if is_answered:
            await self._output.turn_ended()
        if record.is_last:
            self._all.chunks.note(*self._steps.ended(self._step))
        try:
            await self._own.after_turn(own)
        finally:
            self._all.charge(self._step, self._own, own)
        if is_answered and record.is_last:  # calls for the plugin may follow, which nobody stores before
            await self._all.chunks.store()

    async def after_tool(self, call: ToolCall, outcome: ToolOutcome) -> None:
        """Store what a tool answered."""
        await self._own.after_tool(unique(self._step, call), outcome)

    def _of_task(self, request: TurnRequest) -> TurnRequest:
        return replace(request, turn=self._step.first_turn + request.turn)


def unique(step: Step, call: ToolCall) -> ToolCall:
    """The call with an id that no other call of the task has: models count theirs for each conversation."""
    return replace(call, id=unique_id(step, call.id))


def unique_id(step: Step, call_id: str) -> str:
    """As `unique`, of an id alone."""
    return f"{step.number}.{call_id}"
