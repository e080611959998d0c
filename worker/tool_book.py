"""What happens around each tool call: was it made before, and what does whoever comes after have to know of it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from msgspec.structs import replace

from providers import ToolCall, ToolOutcome, ToolSpec
from providers.tool_loop import arguments_of, canonical
from queue_backends import Delivery
from worker.journal import Journal, ToolFinished, ToolStarted, ToolWaits
from worker.recall import OldCall, Past
from worker.streaming import ChunkWriter

INTERRUPTED = (
    "interrupted: the worker that made this call stopped before it had an answer. Whether it took effect is not known: "
    "find out before you repeat it."
)


class ToolBook:
    """Stores the start of each tool call before it is made, and its outcome before anything follows from it."""

    __slots__ = ("_chunks", "_delivery", "_journal", "_past", "_places", "_under_way", "is_whole_run", "on_ended")

    def __init__(self, journal: Journal, delivery: Delivery, chunks: ChunkWriter, past: Past) -> None:
        self.is_whole_run = False
        """The provider runs whole tasks: if it is started over, its calls are known by name and arguments alone."""
        self._journal = journal
        self._delivery = delivery
        self._chunks = chunks
        self._past = past
        self._under_way: dict[str, tuple[str, float]] = {}
        """Call id -> key and when it began, by the monotonic clock."""
        self._places: dict[str, str] = {}
        """Call id -> what it is known by in a run that may be started over."""
        self.on_ended: Callable[[], None] | None = None
        """Told when the outcome of a call is stored."""

    def known(self, call: ToolCall, spec: ToolSpec | None) -> ToolOutcome | None:
        """The outcome that a call has already: what it answered an earlier run of the task, or that it was interrupted
        there and may have taken effect. None: it is to be made."""
        if self.is_whole_run:
            self._place(call)  # before all else: those that have an outcome count among the same ones, too
        old = self._old_call(call)
        if old is not None and old.outcome is not None:
            return replace(old.outcome, call_id=call.id)
        self._under_way[call.id] = (self._key(call), time.monotonic())
        if old is not None and not (spec and spec.idempotent):
            return ToolOutcome(call_id=call.id, name=call.name, content=INTERRUPTED, is_error=True)
        return None

    async def before_tool(self, call: ToolCall) -> None:
        """A tool is about to be called: from now on it may have taken effect."""
        entry = ToolStarted(
            worker=self._delivery.worker,
            key=self._key(call),
            turn=self._chunks.turn,
            call_id=call.id,
            name=call.name,
            arguments=canonical(arguments_of(call)) if self.is_whole_run else "",
        )
        await self._store(entry)

    async def waits(self, call: ToolCall, reason: str) -> None:
        """A call has to wait for something that may take long; it is made again when that is there."""
        entry = ToolWaits(
            worker=self._delivery.worker,
            key=self._key(call),
            turn=self._chunks.turn,
            call_id=call.id,
            name=call.name,
            reason=reason,
        )
        await self._store(entry)

    async def after_tool(self, call: ToolCall, outcome: ToolOutcome) -> None:
        """Store what a tool answered."""
        await self._store(self._finished(call, outcome))
        self._under_way.pop(call.id, None)
        if self.on_ended is not None:
            self.on_ended()

    async def raw(self, call: ToolCall, outcome: ToolOutcome) -> None:
        """Store what a tool answered, though the model may read something else: should the run be interrupted before
        that is known, the call need not be made again, nor count as one that nobody knows the end of."""
        await self._store(replace(self._finished(call, outcome), is_raw=True))

    def _finished(self, call: ToolCall, outcome: ToolOutcome) -> ToolFinished:
        key, started = self._under_way.get(call.id) or (self._key(call), time.monotonic())
        return ToolFinished(
            worker=self._delivery.worker,
            key=key,
            turn=self._chunks.turn,
            outcome=outcome,
            duration_ms=round((time.monotonic() - started) * 1000),
        )

    async def _store(self, entry: ToolStarted | ToolWaits | ToolFinished) -> None:
        self._chunks.note(*self._journal.records(self._delivery.task.id, entry))
        await self._chunks.store()

    def identity(self, call: ToolCall) -> str:
        """What tells a call from all others of its task, whoever runs it. Where a run may be started over, and its
        calls with it, they are known by name and arguments, and by how many of the same there were before. These
        count elsewhere, too: a run whose journal is gone may use an id for something else."""
        if not self.is_whole_run and self._journal.is_on:
            return f"{self._chunks.turn}/{call.id}/{_digest(call)}"
        return self._place(call)

    def _place(self, call: ToolCall) -> str:
        if call.id not in self._places:
            what = _digest(call)
            self._places[call.id] = f"{what}/{sum(place.startswith(what) for place in self._places.values())}"
        return self._places[call.id]

    def _old_call(self, call: ToolCall) -> OldCall | None:
        if self.is_whole_run:
            calls = self._past.by_arguments.get((call.name, canonical(arguments_of(call))))
            return calls.pop(0) if calls else None
        return OldCall(None) if self._key(call) in self._past.interrupted else None

    def _key(self, call: ToolCall) -> str:
        # The ids that a whole run's model gives its calls are new ones each time the run is started over.
        begun = f"{self._delivery.next_attempt}/" if self.is_whole_run else ""
        return f"{begun}{self._chunks.turn}/{call.id}"


def _digest(call: ToolCall) -> str:
    return hashlib.sha256(f"{call.name}\0{canonical(arguments_of(call))}".encode()).hexdigest()[:32]
