"""The stream of a message, in sections: what is shown once is not shown again, whatever worker goes on with it.

A section is what is shown in one go: the text of a model's turn that goes straight to the consumer, one tool chunk, or
what the plugin itself says between two steps. Sections go out one after the other, in the order in which they were
begun; their number is their chunks' `turn`. That a section is out is stored before the first chunk of the next one. So
after a crash exactly one section may have been shown in part, the last one: it is shown anew under a higher `attempt`,
which makes consumers drop what they had of it. Sections that are known to be out are left out: they are
recognised by their label, and what the plugin itself said by its digest.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

import msgspec

from providers import ChunkFn
from queue_backends import ChunkType, Delivery
from worker.journal import Journal, PluginShown
from worker.streaming import ChunkWriter

_TEXT = frozenset({ChunkType.CONTENT, ChunkType.THINKING})
_OWN = "d:"
"""Labels of sections that are known by their digest begin so."""
_VOID = "void"


class Section:
    """Something that is shown in one go. Without a label it is what the plugin itself says."""

    __slots__ = ("_digest", "_last", "attempt", "is_closed", "is_void", "label", "number", "output", "pieces")

    def __init__(self, label: str, attempt: int, output: list[str]) -> None:
        self.label = label
        self.attempt = attempt
        self.output = output
        """Its part of the run's output."""
        self.pieces: deque[tuple[ChunkType, str, Mapping[str, Any] | None]] = deque()
        """What is not written yet."""
        self.number: int | None = None
        """Its chunks' `turn`, from its first chunk on."""
        self.is_closed = False
        self.is_void = False
        """It broke off: consumers shall drop it as soon as something follows."""
        self._digest = hashlib.blake2b(digest_size=12)
        self._last: ChunkType | None = None

    def add(self, kind: ChunkType, content: str, metadata: Mapping[str, Any] | None) -> None:
        """Something more to show."""
        self.pieces.append((kind, content, metadata))
        if kind is not self._last or kind not in _TEXT:
            self._digest.update(f"\0{kind.value}\0".encode())
            self._last = kind
        self._digest.update(content.encode(errors="surrogatepass"))
        if metadata:
            self._digest.update(msgspec.json.encode(metadata, order="sorted"))

    @property
    def name(self) -> str:
        """What it is recognised by, once it is closed."""
        if self.is_void:
            return _VOID
        return self.label or f"{_OWN}{self._digest.hexdigest()}"


class Sections:
    """All sections of one run of a message."""

    def __init__(
        self,
        chunks: ChunkWriter,
        chunk_fn: ChunkFn,
        journal: Journal,
        delivery: Delivery,
        *,
        shown: Counter[str],
        first: int,
        is_taken_over: bool,
    ) -> None:
        """`shown`: labels of those that are out; `first`: number of the first one that is not."""
        self._chunks = chunks
        self._chunk_fn = chunk_fn
        self._journal = journal
        self._delivery = delivery
        self._shown = shown
        self._next = first
        self._may_be_stale = is_taken_over
        """Of the section `first` something may be shown."""
        self._queue: deque[Section] = deque()
        """The first one is being written, the others wait."""
        self._lock = asyncio.Lock()
        self._is_finishing = False
        self._is_muted = False
        self._output: list[list[str]] = []

    # What is said

    def mute(self) -> None:
        """The answer is complete: what still comes is not shown."""
        self._is_muted = True

    async def add(self, section: Section, kind: ChunkType, content: str, metadata: Mapping[str, Any] | None) -> None:
        """Something more of a section. Raises `LeaseLost`."""
        if not self._is_muted:
            section.add(kind, content, metadata)
            await self.advance()

    async def say(self, kind: ChunkType, content: str, metadata: Mapping[str, Any] | None = None) -> None:
        """Something that the plugin itself says. Raises `LeaseLost`."""
        if self._is_muted:
            return
        last = self._queue[-1] if self._queue else None
        if last is None or last.label or last.is_closed:
            last = self._begin("", self._delivery.next_attempt)
        if kind is ChunkType.CONTENT:
            last.output.append(content)
        last.add(kind, content, metadata)
        await self.advance()

    async def say_alone(self, label: str, kind: ChunkType, content: str, metadata: Mapping[str, Any]) -> None:
        """A chunk that is a section of its own. Raises `LeaseLost`."""
        if self._is_muted:
            return
        section = self.begin(label, self._delivery.next_attempt)
        section.add(kind, content, metadata)
        section.is_closed = True
        await self.advance()

    def begin(self, label: str, attempt: int) -> Section:
        """A section that is recognised by its label. What the plugin says from now on comes after it."""
        self.cut()
        return self._begin(label, attempt)

    def restart(self, section: Section, attempt: int) -> None:
        """What a section has shown so far is void."""
        section.pieces.clear()
        section.attempt = attempt

    def abandon(self, section: Section) -> None:
        """A section has broken off, and will not start over."""
        section.pieces.clear()
        section.is_closed = section.is_void = True
        if section.number is not None:
            section.attempt += 1
            section.pieces.append((ChunkType.CONTENT, "", None))

    def cut(self) -> None:
        """What the plugin says from now on belongs to another section: a step is about to be stored."""
        if self._queue and not self._queue[-1].label:
            self._queue[-1].is_closed = True

    def output_slot(self) -> list[str]:
        """A place in the run's output, after all that was said so far."""
        slot: list[str] = []
        self._output.append(slot)
        return slot

    def _begin(self, label: str, attempt: int) -> Section:
        section = Section(label, attempt, [] if label else self.output_slot())
        self._queue.append(section)
        return section

    # What goes out

    async def advance(self) -> None:
        """Write what can be written now. Raises `LeaseLost`."""
        async with self._lock:
            while self._queue and await self._write(self._queue[0]):
                self._queue.popleft()

    async def finish(self) -> str:
        """Everything is said: write the rest, and return the output. Raises `LeaseLost`."""
        self._is_finishing = True
        for section in self._queue:
            section.is_closed = True
        await self.advance()
        if self._may_be_stale:  # nothing has taken the place of what may be shown
            self._may_be_stale = False
            self._chunks.turn, self._chunks.attempt = self._next, self._delivery.next_attempt
            await self._chunk_fn(ChunkType.CONTENT, "")
        return "".join(text for slot in self._output for text in slot)

    async def _write(self, section: Section) -> bool:
        """Whether nothing more will come of a section."""
        if section.number is None:
            if self._may_be_out(section):
                if not section.is_closed:
                    return False
                if self._take(section.name):
                    return True
            if not section.pieces:
                return section.is_closed
            await self._goes_out(section)
        if section.is_void and len(self._queue) == 1 and not self._is_finishing:
            return False  # if the run fails with it, consumers keep what they have
        while section.pieces:
            self._chunks.turn, self._chunks.attempt = section.number or 0, section.attempt
            await self._chunk_fn(*section.pieces[0])
            section.pieces.popleft()
        if section.is_closed:
            entry = PluginShown(worker=self._delivery.worker, section=section.number or 0, label=section.name)
            self._chunks.note(*self._journal.records(self._delivery.task.id, entry))
        return section.is_closed

    async def _goes_out(self, section: Section) -> None:
        if self._chunks.has_news:  # nothing of it may be seen before all that came before it is known to be out
            await self._chunks.store()
        section.number, self._next = self._next, self._next + 1
        self._may_be_stale = False

    def _may_be_out(self, section: Section) -> bool:
        if section.label:
            return self._shown[section.label] > 0
        return any(label.startswith(_OWN) for label in self._shown)

    def _take(self, label: str) -> bool:
        """Whether a section is known to be out; each one is taken once."""
        if self._shown[label] <= 0:
            del self._shown[label]
            return False
        self._shown[label] -= 1
        if not self._shown[label]:
            del self._shown[label]
        return True
