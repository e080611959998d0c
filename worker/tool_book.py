"""What happens around each tool call: was it made before, and what does whoever comes after have to know of it."""

from __future__ import annotations

import time

from msgspec.structs import replace

from providers import ToolCall, ToolOutcome, ToolSpec
from providers.tool_loop import arguments_of, canonical
from queue_backends import Delivery
from worker.journal import Journal, ToolFinished, ToolStarted
from worker.recall import OldCall, Past
from worker.streaming import ChunkWriter

INTERRUPTED = (
    "interrupted: the worker that made this call stopped before it had an answer. Whether it took effect is not known: "
    "find out before you repeat it."
)


class ToolBook:
    """Stores the start of each tool call before it is made, and its outcome before anything follows from it."""

    __slots__ = ("_chunks", "_delivery", "_journal", "_past", "_under_way", "is_whole_run")

    def __init__(self, journal: Journal, delivery: Delivery, chunks: ChunkWriter, past: Past) -> None:
        self.is_whole_run = False
        """The provider runs whole tasks: if it is started over, its calls are known by name and arguments alone."""
        self._journal = journal
        self._delivery = delivery
        self._chunks = chunks
        self._past = past
        self._under_way: dict[str, tuple[str, float]] = {}
        """Call id -> key and when it began, by the monotonic clock."""

    async def before_tool(self, call: ToolCall, spec: ToolSpec | None) -> ToolOutcome | None:
        """A tool is about to be called; it is not if there is an outcome already, which is returned then: what it
        answered an earlier run of the task, or that it was interrupted there and may have taken effect."""
        old = self._old_call(call)
        if old is not None and old.outcome is not None:
            return replace(old.outcome, call_id=call.id)
        key = self._key(call)
        self._under_way[call.id] = (key, time.monotonic())
        if old is not None and not (spec and spec.idempotent):
            return ToolOutcome(call_id=call.id, name=call.name, content=INTERRUPTED, is_error=True)
        entry = ToolStarted(
            worker=self._delivery.worker,
            key=key,
            turn=self._chunks.turn,
            call_id=call.id,
            name=call.name,
            arguments=canonical(arguments_of(call)) if self.is_whole_run else "",
        )
        self._chunks.note(*self._journal.records(self._delivery.task.id, entry))
        await self._chunks.store()
        return None

    async def after_tool(self, call: ToolCall, outcome: ToolOutcome) -> None:
        """Store what a tool answered."""
        key, started = self._under_way.pop(call.id, (self._key(call), time.monotonic()))
        entry = ToolFinished(
            worker=self._delivery.worker,
            key=key,
            turn=self._chunks.turn,
            outcome=outcome,
            duration_ms=round((time.monotonic() - started) * 1000),
        )
        self._chunks.note(*self._journal.records(self._delivery.task.id, entry))
        await self._chunks.store()

    def _old_call(self, call: ToolCall) -> OldCall | None:
        if self.is_whole_run:
            calls = self._past.by_arguments.get((call.name, canonical(arguments_of(call))))
            return calls.pop(0) if calls else None
        return OldCall(None) if self._key(call) in self._past.interrupted else None

    def _key(self, call: ToolCall) -> str:
        # The ids that a whole run's model gives its calls are new ones each time the run is started over.
        begun = f"{self._delivery.next_attempt}/" if self.is_whole_run else ""
        return f"{begun}{self._chunks.turn}/{call.id}"
