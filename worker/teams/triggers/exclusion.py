"""One run of a trigger at a time: `Forbid` leaves a firing out while the one before goes on, `Replace` ends that one.

Who may go on holds the trigger's slot, which changes hands in one atomic step, so that no two firings have it, through
whichever processes they come. The slot names its holder's runs; it is free when those have ended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import msgspec
import structlog
from msgspec import Struct

from queue_backends.messages import encode_json
from worker.teams.errors import RunEnded, RunNotFound
from worker.teams.runs import Runs
from worker.teams.triggers.firing import Firing, FiringState
from worker.teams.triggers.ledger import KEEP_MARKS_S, Ledger

log = structlog.get_logger(__name__)


class _Slot(Struct, frozen=True, kw_only=True, omit_defaults=True):
    key: str
    """Of the firing that has it."""
    firing: str
    fired_at: float
    run_ids: tuple[str, ...]
    replaced: tuple[str, ...] = ()
    """Runs of the one before, which are to be ended."""


class Exclusion:
    """The slots of all triggers."""

    def __init__(self, ledger: Ledger, runs: Runs) -> None:
        self._ledger = ledger
        self._state = ledger.state
        self._runs = runs

    async def enter(self, key: str, firing: Firing) -> str:
        """Take the slot for a firing, which may have it already. Returns why it cannot be had; empty: it has it.

        Raises `BackendUnavailable`.
        """
        if firing.concurrency == "Allow":
            return ""
        while True:
            raw, slot = await self._slot(firing)
            if slot is not None and slot.firing == firing.id:
                return ""
            wanted = _Slot(key=key, firing=firing.id, fired_at=firing.fired_at, run_ids=firing.run_ids)
            if slot is not None:
                going = await self._going(slot)
                if going and firing.concurrency == "Forbid":
                    return f"run {going[0]} of this trigger has not ended, and its concurrency policy is Forbid"
                if going and slot.fired_at > firing.fired_at:
                    return f"a later firing has replaced it: run {going[0]}"
                unsettled = await self._going_of(slot.replaced)  # its holder may not have come so far yet
                wanted = msgspec.structs.replace(wanted, replaced=(*unsettled, *going))
            if await self._state.compare_and_set(_key(firing), raw, encode_json(wanted), ttl_s=KEEP_MARKS_S):
                return ""

    async def leave(self, firing: Firing) -> None:
        """Give the slot back: nothing was started. Raises `BackendUnavailable`."""
        raw, slot = await self._slot(firing)
        if slot is not None and slot.firing == firing.id:
            await self._state.compare_and_set(_key(firing), raw, None)

    async def settle(self, firing: Firing) -> None:
        """The firing's runs have been started: end those that it replaces; and end its own, if a later one has taken
        the slot since. Whichever of two comes first, the earlier one's runs are ended. Raises `BackendUnavailable`."""
        if firing.concurrency != "Replace":
            return
        _, slot = await self._slot(firing)
        if slot is None:
            return
        ending: Sequence[str] = slot.replaced if slot.firing == firing.id else firing.run_ids
        for run_id in ending:
            with contextlib.suppress(RunEnded, RunNotFound):
                await self._runs.cancel(run_id, by=f"trigger {firing.trigger}", reason="replaced by a later firing")
                log.info("a run is replaced", trigger=firing.trigger, run=run_id)

    async def _going(self, slot: _Slot) -> list[str]:
        """Runs of the slot's holder that have not ended, or are yet to be started."""
        holder = await self._ledger.read(slot.key)
        if holder is not None and not holder.state.is_over:
            return list(slot.run_ids)
        if holder is not None and holder.state is not FiringState.FIRED:
            return []
        return await self._going_of(slot.run_ids)

    async def _going_of(self, run_ids: Sequence[str]) -> list[str]:
        return [run_id for run_id in run_ids if await self._is_going(run_id)]

    async def _is_going(self, run_id: str) -> bool:
        try:
            run = await self._runs.read(run_id)
        except RunNotFound:
            return False
        return not run.state.phase.is_final

    async def _slot(self, firing: Firing) -> tuple[bytes | None, _Slot | None]:
        raw = await self._state.get(_key(firing))
        return raw, msgspec.json.decode(raw, type=_Slot) if raw is not None else None


def _key(firing: Firing) -> str:
    return f"trigger-slots/{firing.namespace}/{firing.trigger}"
