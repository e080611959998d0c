"""Runs for which there is something to be done: those that have not ended, and those whose end has not been told."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import msgspec
from msgspec import Struct

from queue_backends import StateStore
from queue_backends.messages import encode_json
from worker.teams.run_keys import ACTIVE, ACTIVE_HELLO


class ActiveRun(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How urgent it is."""

    id: str
    is_local: bool = False
    rests_until: float = 0.0
    """Nobody needs to drive it before that moment (Unix seconds), unless what it waits for happens. 0: now."""
    waits_for: tuple[str, ...] = ()
    """Approvals, any of which lets it go on."""
    put_at: float = 0.0


_active = msgspec.json.Decoder(ActiveRun).decode


class ActiveRuns:
    """The set of them, under keys of its own."""

    def __init__(self, state: StateStore) -> None:
        self._state = state

    async def put(
        self, run_id: str, *, is_local: bool = False, rests_until: float = 0.0, waits_for: tuple[str, ...] = ()
    ) -> None:
        """There is something to be done for it, now or at a later moment."""
        active = ActiveRun(
            id=run_id, is_local=is_local, rests_until=rests_until, waits_for=waits_for, put_at=time.time()
        )
        await self._state.set(f"{ACTIVE}{run_id}", encode_json(active))

    async def drop(self, run_id: str) -> None:
        """There is nothing more to be done for it, ever."""
        await self._state.delete(f"{ACTIVE}{run_id}")

    async def has(self, run_id: str) -> bool:
        """Whether there is something to be done for it."""
        return await self._state.get(f"{ACTIVE}{run_id}") is not None

    async def all(self) -> AsyncIterator[ActiveRun]:
        """Every one, in no order."""
        async for key, value in self._state.scan(ACTIVE):
            if key != ACTIVE_HELLO:
                yield decode_active(value)


def decode_active(value: bytes) -> ActiveRun:
    """As it stands under its key."""
    return _active(value)
