"""A role's earlier work and its answers, as a conversation that its next task goes on with.

| key                                     | value         | lives                                             |
|-----------------------------------------|---------------|---------------------------------------------------|
| `team-memory/run/<run>/<role>`          | `Pages`, JSON | as long as the run is kept, at most 30 days       |
| `team-memory/of/<tenant>/<name>/<role>` | `Pages`, JSON | `ttlSeconds` after the last entry, else 30 days   |
"""

from __future__ import annotations

import asyncio
import random
import time

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from queue_backends import QueueError, StateStore
from queue_backends.messages import JsonObject, encode_json
from worker.teams.memory.interfaces import MemoryUnavailable
from worker.teams.memory.recollection import Recollection
from worker.teams.memory.shortening import shortened
from worker.teams.memory.work import Work

MOST_ENTRIES = 200
MOST_CHARS = 128_000
"""Of everything that a notebook holds; about 32,000 tokens. What is older goes."""
MOST_ENTRY_CHARS = 16_000
"""Of a prompt, and of an answer."""
_TRIES = 50
_LONGEST_PAUSE_S = 0.1


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of work that is done."""

    id: str
    """`Work.id`."""
    asked: str
    answered: str
    at: float
    """Unix seconds."""

    @property
    def chars(self) -> int:
        """How long it is."""
        return len(self.asked) + len(self.answered)


class Pages(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a notebook holds, the oldest first."""

    entries: tuple[Entry, ...] = ()

    def with_entry(self, entry: Entry) -> Pages:
        """With it at the end, or in its own place if that work stands here already."""
        if all(each.id != entry.id for each in self.entries):
            return Pages(entries=(*self.entries, entry))
        return Pages(entries=tuple(_newer(each, entry) if each.id == entry.id else each for each in self.entries))


_decode = msgspec.json.Decoder(Pages).decode


class Notebook:
    """A memory under one key of a state store."""

    def __init__(self, state: StateStore, key: str, *, keep_s: float, ttl_s: float = 0.0, max_entries: int = 0) -> None:
        """An entry is forgotten after `ttl_s` (0: never by itself), all of them `keep_s` after the last one."""
        self._state = state
        self._key = key
        self._keep_s = keep_s
        self._ttl_s = ttl_s
        self._max_entries = min(max_entries or MOST_ENTRIES, MOST_ENTRIES)

    async def recall(self, work: Work) -> Recollection:
        """The conversation so far."""
        _, pages = await self._read()
        told: list[JsonObject] = []
        for entry in self._fitting(pages.entries, time.time()):
            if entry.id != work.id:  # work that is started over has been answered before, perhaps
                told += [{"role": "user", "content": entry.asked}, {"role": "assistant", "content": entry.answered}]
        return Recollection(history=tuple(told))

    async def keep(self, work: Work, answer: str) -> None:
        """Write it down. Roles that work at the same time write one after the other."""
        if not answer.strip() or not work.asked.strip():
            return
        entry = Entry(
            id=work.id,
            asked=shortened(work.asked, MOST_ENTRY_CHARS),
            answered=shortened(answer, MOST_ENTRY_CHARS),
            at=time.time(),
        )
        for _ in range(_TRIES):
            before, pages = await self._read()
            after = Pages(entries=self._fitting(pages.with_entry(entry).entries, entry.at))
            if after == pages:
                return
            try:
                if await self._state.compare_and_set(self._key, before, encode_json(after), ttl_s=self._keep_s):
                    return
            except QueueError as error:
                raise MemoryUnavailable(f"the memory's store cannot be written to: {error}") from error
            await asyncio.sleep(random.uniform(0, _LONGEST_PAUSE_S))  # noqa: S311 - jitter is no secret
        raise MemoryUnavailable(f"others wrote to the memory {_TRIES} times while this task wanted to")

    async def _read(self) -> tuple[bytes | None, Pages]:
        try:
            stored = await self._state.get(self._key)
            return stored, Pages() if stored is None else _decode(stored)
        except QueueError as error:
            raise MemoryUnavailable(f"the memory's store cannot be read: {error}") from error
        except msgspec.MsgspecError as error:
            raise MemoryUnavailable(f"what stands at {self._key!r} is no memory: {error}: delete it") from error

    def _fitting(self, entries: tuple[Entry, ...], now: float) -> tuple[Entry, ...]:
        """The newest of those that are young enough: as many as may be, as long as may be."""
        young = [entry for entry in entries if not self._ttl_s or entry.at > now - self._ttl_s]
        chars, kept = 0, []
        for entry in reversed(young[-self._max_entries :]):
            chars += entry.chars
            if chars > MOST_CHARS:
                break
            kept.append(entry)
        return tuple(reversed(kept))


def _newer(known: Entry, again: Entry) -> Entry:
    """The same work, answered anew; the same answer changes nothing."""
    return known if known.answered == again.answered else replace(again, asked=known.asked)
