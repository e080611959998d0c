"""What a parked task waits for: kept in the state store, so that whoever ends a child knows when to wake it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

import msgspec
from msgspec import Struct

from queue_backends import StateStore
from queue_backends.messages import encode_json

KEEP_S = 8 * 86_400.0
_TRIES = 20


class Wait(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call that waits."""

    since: float
    """When it was first made. Unix seconds."""
    ids: tuple[str, ...]
    """The tasks whose results it wants."""


_Record = dict[str, Wait]
_decode = msgspec.json.Decoder(_Record).decode


class Waits:
    """By task, the calls of it that wait."""

    def __init__(self, state: StateStore) -> None:
        self._state = state

    async def find(self, task_id: str, call_id: str) -> Wait | None:
        """What a call waits for, if it was made before."""
        return (await self.of(task_id)).get(call_id)

    async def of(self, task_id: str) -> _Record:
        """All that a task waits for, by call."""
        stored = await self._state.get(_key(task_id))
        return {} if stored is None else _decode(stored)

    async def is_over(self, task_id: str, ended: Collection[str]) -> bool:
        """Whether one of its calls waits for nothing any more, if these tasks have ended."""
        return any(all(each in ended for each in wait.ids) for wait in (await self.of(task_id)).values())

    async def begin(self, task_id: str, call_id: str, ids: Sequence[str]) -> Wait:
        """Note that a call begins to wait; one that was made before goes on with what it has."""
        wait = Wait(since=time.time(), ids=tuple(ids))
        record = await self._change(task_id, lambda record: {call_id: wait, **record})
        return record.get(call_id, wait)

    async def end(self, task_id: str, call_id: str) -> None:
        """The call does not wait any more."""
        await self._change(task_id, lambda record: {name: wait for name, wait in record.items() if name != call_id})

    async def _change(self, task_id: str, change: Callable[[_Record], _Record]) -> _Record:
        key = _key(task_id)
        for _ in range(_TRIES):  # only the task itself writes, and it makes a few calls at once
            stored = await self._state.get(key)
            before = {} if stored is None else _decode(stored)
            after = change(before)
            if after == before:
                return after
            value = encode_json(after) if after else None
            if await self._state.compare_and_set(key, stored, value, ttl_s=KEEP_S):
                return after
        return after


def _key(task_id: str) -> str:
    return f"team-waits/{task_id}"
