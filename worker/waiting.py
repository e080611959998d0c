"""What a parked task waits for, in words, from its journal."""

from __future__ import annotations

import msgspec

from queue_backends import StateStore
from worker.journal import AttemptEnded, Entry, log_name

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
