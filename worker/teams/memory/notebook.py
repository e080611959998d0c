"""A role's earlier tasks and their answers, as a conversation that its next task goes on with.

| key                              | value                  | lives                       |
|----------------------------------|------------------------|-----------------------------|
| `team-memory/run/<run>/<role>`   | `Pages`, JSON          | as long as runs are kept    |
| `team-memory/of/<tenant>/<name>/<role>` | `Pages`, JSON   | `ttlSeconds` after the last |
"""

from __future__ import annotations

import time

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from queue_backends import QueueError, StateStore, Task
from queue_backends.messages import JsonObject, encode_json
from worker.teams.memory.interfaces import MemoryUnavailable

MOST_ENTRIES = 200
MOST_CHARS = 128_000
"""Of everything that a notebook holds; about 32,000 tokens. What is older goes."""
MOST_ENTRY_CHARS = 16_000
"""Of a prompt, and of an answer."""
_TRIES = 50


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task of the role."""

    task_id: str
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

    async def recall(self, task: Task) -> Task:
        """The task as the next message of a conversation."""
        _, pages = await self._read()
        told: list[JsonObject] = []
        for entry in self._fitting(pages.entries, time.time()):
            if entry.task_id != task.id:  # a run that is started over has been answered before, perhaps
                told += [{"role": "user", "content": entry.asked}, {"role": "assistant", "content": entry.answered}]
        return replace(task, history=(*told, *task.history)) if told else task

    async def keep(self, task: Task, output: str) -> None:
        """Write it down. Roles that work at the same time write one after the other."""
        if not output.strip() or not task.prompt.strip():
            return
        entry = Entry(
            task_id=task.id,
            asked=task.prompt[:MOST_ENTRY_CHARS],
            answered=output[:MOST_ENTRY_CHARS],
            at=time.time(),
        )
        for _ in range(_TRIES):
            before, pages = await self._read()
            if any(each.task_id == task.id for each in pages.entries):
                return
            after = Pages(entries=self._fitting((*pages.entries, entry), entry.at))
            try:
                if await self._state.compare_and_set(self._key, before, encode_json(after), ttl_s=self._keep_s):
                    return
            except QueueError as error:
                raise MemoryUnavailable(f"the memory's store cannot be written to: {error}") from error
        raise MemoryUnavailable(f"others wrote to the memory {_TRIES} times while this task wanted to")

    async def _read(self) -> tuple[bytes | None, Pages]:
        try:
            stored = await self._state.get(self._key)
            return stored, Pages() if stored is None else _decode(stored)
        except QueueError as error:
            raise MemoryUnavailable(f"the memory's store cannot be read: {error}") from error
        except msgspec.MsgspecError as error:
            raise MemoryUnavailable(f"the memory {self._key!r} cannot be read: {error}") from error

    def _fitting(self, entries: tuple[Entry, ...], now: float) -> tuple[Entry, ...]:
        """The newest of them that are young, few and short enough."""
        chars, kept = 0, []
        for entry in reversed(entries[-self._max_entries :]):
            chars += entry.chars
            if chars > MOST_CHARS or (self._ttl_s and entry.at < now - self._ttl_s):
                break
            kept.append(entry)
        return tuple(reversed(kept))
