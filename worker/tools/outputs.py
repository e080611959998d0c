"""Tool outputs that are longer than what a model reads: kept in the state store, and read page by page.

An output stands under `outputs/<task id>/<call id>` (its head) and the same with `#0`, `#1`, … (its text, in pieces
small enough for one command); the counter set `outputs/<task id>` has how many characters of each call are kept, and of
all.
Everything expires with the task's result.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable

import msgspec
from msgspec import Struct

from queue_backends import StateStore
from worker.persistence import persistently
from worker.tools.interfaces import OutputNotKept, OutputPage

PIECE_CHARS = 262_144
"""At most one MiB of UTF-8."""
BUSY_CHARS = 8_388_608
"""With more than this about to be stored, a worker's next tools wait before they say still more."""
MOST_WAITING_CHARS = 67_108_864
"""Of all outputs that a worker is about to store; what tools that had begun before bring on top of it is not kept."""
MOST_WRITERS = 4
TOTAL = ""
"""The field of a task's counter set that has the sum."""

OnKept = Callable[[str, str, int], None]
"""Told of each output that is kept: call id, reference, characters."""


class _Head(Struct, frozen=True):
    """What is known of a kept output."""

    chars: int
    """Of the whole output."""
    kept_chars: int


class OutputStore:
    """The kept outputs of all tasks, as one worker writes them."""

    def __init__(self, state: StateStore, *, keep_s: float, max_chars: int) -> None:
        """`keep_s` is how long an output stays; `max_chars` bounds what one task may keep in all its outputs."""
        self.state = state
        self.keep_s = keep_s
        self.max_chars = max_chars
        self.waiting_chars = 0
        """Of the outputs that are about to be stored."""
        self.is_free = asyncio.Event()
        self.is_free.set()
        self.writers = asyncio.Semaphore(MOST_WRITERS)

    def count(self, chars: int) -> None:
        """So many characters more are waiting; or fewer, if negative."""
        self.waiting_chars += chars
        if self.waiting_chars > BUSY_CHARS:
            self.is_free.clear()
        else:
            self.is_free.set()

    def of(self, task_id: str, on_kept: OnKept | None = None) -> TaskOutputs:
        """The outputs of one task."""
        return TaskOutputs(self, task_id, on_kept)


class TaskOutputs:
    """`KeptOutputs` of one task: nobody reaches another task's by it."""

    def __init__(self, store: OutputStore, task_id: str, on_kept: OnKept | None = None) -> None:
        self._store = store
        self._task_id = task_id
        self._on_kept = on_kept

    async def ready(self) -> None:
        """Return when another output may come. The caller bounds the time."""
        while not self._store.is_free.is_set():
            await self._store.is_free.wait()

    async def keep(self, call_id: str, text: str) -> str:
        """Store the output of a call, up to what the task may keep, and return a note of where it is.

        Waits while the broker is away: the caller bounds the time. Raises `OutputNotKept`.
        """
        store = self._store
        if store.waiting_chars + len(text) > MOST_WAITING_CHARS:
            raise OutputNotKept("too many outputs are waiting to be stored")
        store.count(len(text))
        try:
            async with store.writers:
                kept_chars = await self._write(call_id, text)
        finally:
            store.count(-len(text))
        reference = f"output:{call_id}"
        if self._on_kept is not None:
            self._on_kept(call_id, reference, len(text))
        if kept_chars < len(text):
            return f"the first {kept_chars} are stored as {reference}"
        return f"all of it is stored as {reference}"

    async def _write(self, call_id: str, text: str) -> int:
        store = self._store
        kept_chars = min(len(text), store.max_chars)
        await self._make_room(call_id, kept_chars)
        key = self._key(call_id)
        for number, start in enumerate(range(0, kept_chars, PIECE_CHARS)):
            piece = text[start : min(start + PIECE_CHARS, kept_chars)].encode()
            await self._set(f"{key}#{number}", piece)
        # Last, so that whoever finds it finds everything.
        await self._set(key, msgspec.json.encode(_Head(len(text), kept_chars)))
        return kept_chars

    async def _make_room(self, call_id: str, chars: int) -> None:
        """Count what is going to be kept. A call that is repeated counts once."""
        store, name = self._store, f"outputs/{self._task_id}"
        before = await self._head(call_id)
        more = chars - (before.kept_chars if before else 0)
        total = await persistently(
            lambda: store.state.add(name, TOTAL, more, limit=store.max_chars, ttl_s=store.keep_s), "store a tool output"
        )
        if total is None:
            raise OutputNotKept(f"the task has as many characters of outputs stored as it may ({store.max_chars})")
        await persistently(lambda: store.state.add(name, call_id, more, ttl_s=store.keep_s), "store a tool output")

    async def read(self, call_id: str, offset: int, limit: int) -> OutputPage | None:
        """Up to `limit` characters from `offset` on; None if no such output is kept, any more or ever."""
        head = await self._head(call_id)
        if head is None:
            return None
        key, texts = self._key(call_id), []
        end = max(offset, min(offset + limit, head.kept_chars))
        for number in range(offset // PIECE_CHARS, -(-end // PIECE_CHARS)):
            piece = await self._get(f"{key}#{number}")
            if piece is None:
                return None
            texts.append(piece.decode())
        start = offset % PIECE_CHARS
        return OutputPage(
            text="".join(texts)[start : start + end - offset],
            offset=offset,
            kept_chars=head.kept_chars,
            chars=head.chars,
        )

    async def whole(self, call_id: str) -> AsyncIterator[str]:
        """The text in pieces; none if no such output is kept."""
        offset = 0
        while page := await self.read(call_id, offset, PIECE_CHARS):
            if not page.text:
                return
            yield page.text
            offset += len(page.text)

    async def kept(self) -> dict[str, int]:
        """Call id -> characters of it that are kept."""
        counted = await self._store.state.counters(f"outputs/{self._task_id}")
        return {call_id: chars for call_id, chars in counted.items() if call_id != TOTAL}

    async def _head(self, call_id: str) -> _Head | None:
        data = await self._get(self._key(call_id))
        return None if data is None else msgspec.json.decode(data, type=_Head)

    async def _get(self, key: str) -> bytes | None:
        return await persistently(lambda: self._store.state.get(key), "read a tool output")

    async def _set(self, key: str, value: bytes) -> None:
        store = self._store
        await persistently(lambda: store.state.set(key, value, ttl_s=store.keep_s), "store a tool output")

    def _key(self, call_id: str) -> str:
        # Ids are the model's own text: one with `/` or `#` must not lead to another output, or another task's.
        plain = re.fullmatch(r"[\w.:-]{1,128}", call_id, re.ASCII)
        digest = hashlib.sha256(call_id.encode("utf-8", "replace")).hexdigest()
        return f"outputs/{self._task_id}/{call_id if plain else f'~{digest}'}"
