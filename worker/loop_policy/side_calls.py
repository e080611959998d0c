"""Model calls beside a run's own turns: one question, one answer, no tools, and nothing of it in the run's stream.

They pass the gates of budgets and rate limits, leave a usage record each, and are part of what the run costs. Their
answers stand in the journal: a run that goes on elsewhere asks for the same thing only once.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from providers import (
    AgentConfig,
    ChatProvider,
    LLMProvider,
    Message,
    ProviderError,
    StopReason,
    ToolCall,
    ToolChoice,
    ToolOutcome,
    TurnRequest,
    tool_loop,
)
from providers.messages import TurnEnd
from providers.tool_loop import FinishedTurn, TurnRecord
from queue_backends import CallOutcome, ChunkType, Delivery, Task, TokenUsage
from queue_backends.messages import encode_json
from worker.journal import SIDE_TURNS, Entry, ModelCall, SideCall
from worker.loop_policy.earlier import ended_calls, is_read
from worker.loop_policy.side_book import SideBook
from worker.metrics import AgentMetrics
from worker.routing.run_providers import RunProviders
from worker.routing.run_router import RunRouter
from worker.streaming import ChunkWriter
from worker.surroundings import Surroundings
from worker.tools.outcome import failed
from worker.turn_book import ROUTE, TurnBook


class Answer(Struct, frozen=True):
    """What was said."""

    text: str
    usage: TokenUsage


class RunParts(Struct, frozen=True, kw_only=True, eq=False):
    """What a run's policy needs of its run."""

    around: Surroundings
    delivery: Delivery
    task: Task
    """As the run has it, with its conversation."""
    book: TurnBook
    chunks: ChunkWriter
    metrics: AgentMetrics
    entries: tuple[Entry, ...] = ()
    """Of its journal, as earlier deliveries left it."""
    finished: tuple[FinishedTurn, ...] = ()
    """Its turns, as they did."""


class SideCalls:
    """Those of one run."""

    def __init__(self, run: RunParts) -> None:
        self._run = run
        begun = [entry for entry in run.entries if isinstance(entry, SideCall)]
        self._next = max((entry.number + 1 for entry in begun), default=0)
        self._unread = _unread(run.entries)

    async def ask(
        self, what: str, config: AgentConfig, prompt: str, *, call_id: str, about: str = "", question: str = ""
    ) -> Answer:
        """The answer of the configuration's model, without its tools. `what`, `call_id` and `about` are as in
        `SideCall`; with these and the `question`, an answer is recognised that an earlier delivery has paid for and
        the run's model has not read: the `prompt` may have changed since.

        Raises a `ProviderError`, among them `BudgetExceeded`; `Postponed`, a `QueueError`, and whatever a provider of
        somebody else's does. The caller bounds the time.
        """
        plain = replace(
            config,
            tools=(),
            client_tools=(),
            tool_choice=ToolChoice.AUTO,
            output_schema=None,
            max_turns=1,
            max_run_tokens=None,
        )
        digest = _digest(what, about, question)
        if unread := self._unread.get(digest):
            return unread.pop(0)
        entry = SideCall(
            worker=self._run.delivery.worker,
            number=self._next,
            what=what,
            attempt=self._run.delivery.next_attempt,
            digest=digest,
            call_id=call_id,
            about=about,
        )
        self._next += 1
        return await self._sent(entry, plain, prompt)

    async def _sent(self, entry: SideCall, config: AgentConfig, prompt: str) -> Answer:
        around = self._run.around
        task = replace(self._run.task, prompt=prompt, history=())
        router: RunRouter | None = None
        if around.providers.routed(config):
            router, taken = around.routing.begin(config, task)
        else:
            taken = RunProviders(around.providers)
        try:
            provider = None if router is not None else await taken.take(config)
            book = self._opened(entry, config, ROUTE if provider is None else provider.name)
            try:
                if provider is None or isinstance(provider, ChatProvider):
                    return await self._by_turn(provider, config, task, book, router)
                return await self._by_run(provider, config, task, book)
            finally:
                book.close()
        finally:
            taken.give_back()

    def _opened(self, entry: SideCall, config: AgentConfig, provider: str) -> SideBook:
        """What it is, noted: it is stored before the call is sent."""
        run = self._run
        entry = replace(entry, provider=provider, model=config.model or config.route)
        run.chunks.note(*run.around.journal.records(run.task.id, entry))
        return SideBook(
            entry.number,
            run.book,
            around=run.around,
            delivery=run.delivery,
            config=config,
            provider=provider,
            chunks=run.chunks,
            metrics=run.metrics,
        )

    async def _by_turn(
        self, provider: ChatProvider | None, config: AgentConfig, task: Task, book: SideBook, router: RunRouter | None
    ) -> Answer:
        attempt = self._run.delivery.next_attempt
        run = await tool_loop.run(provider, config, task, (), _no_tools, _unheard, book, attempt=attempt, router=router)
        return Answer(run.output, run.usage)

    async def _by_run(self, provider: LLMProvider, config: AgentConfig, task: Task, book: SideBook) -> Answer:
        """By a provider that runs whole tasks: one without tools."""
        started_at, clock = time.time(), time.monotonic()
        asked = Message.user(task.prompt)
        attempt = self._run.delivery.next_attempt

        def record(outcome: CallOutcome, usage: TokenUsage | None, error: str = "", said: str = "") -> TurnRecord:
            used = usage or TokenUsage()
            answer = Message.assistant(said)
            is_answered = outcome is CallOutcome.COMPLETED
            return TurnRecord(
                turn=0,
                attempt=attempt,
                outcome=outcome,
                usage=used,
                started_at=started_at,
                duration_ms=round((time.monotonic() - clock) * 1000),
                end=TurnEnd(message=answer, stop_reason=StopReason.END_TURN, usage=used) if is_answered else None,
                error=error,
            )

        await book.before_turn(TurnRequest(config=config, messages=(asked,), attempt=attempt), TokenUsage())
        clock = time.monotonic()
        try:
            output, usage = await provider.run_task(config, task, (), _no_tools, _unheard)
        except Exception as error:
            used = error.usage if isinstance(error, ProviderError) else None
            await book.after_turn(record(CallOutcome.FAILED, used, str(error)))
            raise
        except BaseException:
            await book.after_turn(record(CallOutcome.CANCELLED, None, "cancelled"))
            raise
        await book.after_turn(record(CallOutcome.COMPLETED, usage, said=output))
        return Answer(output, usage)


def _unread(entries: tuple[Entry, ...]) -> dict[str, list[Answer]]:
    """By digest: what was answered to an earlier delivery, and the model has not read."""
    ended = ended_calls(entries)
    begun = {SIDE_TURNS + entry.number: entry for entry in entries if isinstance(entry, SideCall)}
    found: dict[str, list[Answer]] = {}
    for entry in entries:
        if not isinstance(entry, ModelCall) or entry.end is None:
            continue
        side = begun.get(entry.turn)
        if side is not None and not is_read(side, ended):
            found.setdefault(side.digest, []).append(Answer(entry.end.message.text, entry.usage.usage))
    return found


def _digest(what: str, about: str, question: str) -> str:
    return hashlib.blake2b(encode_json([what, about, question]), digest_size=16).hexdigest()


async def _no_tools(call: ToolCall) -> ToolOutcome:
    return failed(call, "there are no tools here: answer with what you know")


async def _unheard(kind: ChunkType, content: str, metadata: Mapping[str, Any] | None = None, /) -> None:
    """What is said beside the run is not part of its stream."""
