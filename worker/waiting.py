"""What a parked task waits for, in words, from its journal."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from queue_backends import StateStore
from worker.journal import AttemptEnded, Entry, Moment, TakenOver, log_name

_decode = msgspec.json.Decoder(Entry).decode


async def waits_for(state: StateStore, task_id: str) -> str:
    """Of a task that lies delayed in the queue: what it is parked for; empty if it is delayed for something else.

    Raises `BackendUnavailable`.
    """
    kept = await state.read_log(log_name(task_id), limit=1, newest_first=True)
    if not kept:
        return ""
    try:
        last = _decode(kept[0].value)
    except msgspec.MsgspecError:
        return ""
    return last.error if isinstance(last, AttemptEnded) and last.how == "parked" else ""


def without_vain_looks(moments: Sequence[Moment]) -> list[Moment]:
    """A journal without what a parked task noted when it merely looked and lay down again, which may be hundreds of
    times: the first parking and the last stay."""
    kept: list[Moment] = []
    for moment in moments:
        if _is_parked(moment) and len(kept) >= 4 and _is_vain_look(kept[-4:]):
            del kept[-3:-1]
        kept.append(moment)
    return kept


def _is_vain_look(last: Sequence[Moment]) -> bool:
    """Parked, taken over, parked, taken over."""
    first, look, second, after = last
    takes_over = isinstance(look.entry, TakenOver) and isinstance(after.entry, TakenOver)
    return takes_over and _is_parked(first) and _is_parked(second)


def _is_parked(moment: Moment) -> bool:
    return isinstance(moment.entry, AttemptEnded) and moment.entry.how == "parked"
