"""How many tasks runs may delegate. The calls that ask for them are noted, so that one that is made again after a crash
counts once, and of two at the same moment the one that was noted first has its tasks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from queue_backends import LogRecord
from queue_backends.messages import encode_json
from worker.teams.run_keys import calls_log
from worker.teams.sub_runs import enclosing

if TYPE_CHECKING:
    from worker.teams.runs import Runs

MOST_CHILDREN = 200
"""Tasks that one run may delegate."""
MOST_IN_ALL = 1000
"""The same, together with all runs of teams within it: teams may delegate to each other in circles."""
_KEEP_S = 90 * 86_400.0
_PAGE = 1000


class _Asked(Struct, frozen=True, kw_only=True):
    """A call that delegates."""

    run: str
    tasks: int


_decode = msgspec.json.Decoder(_Asked).decode


async def room_for(runs: Runs, run_id: str, call: str, tasks: int) -> str:
    """Why a call may not delegate so many tasks; empty: it may. All of them or none."""
    log = calls_log((await enclosing(runs, run_id))[-1])
    mine = _Asked(run=run_id, tasks=tasks)
    await runs.state.append_once([LogRecord(log=log, id=call, value=encode_json(mine), keep_s=_KEEP_S)])
    used: Counter[str] = Counter()
    cursor = ""
    while entries := (page := await runs.state.read_on(log, cursor, limit=_PAGE)).entries:
        cursor = page.cursor
        for entry in entries:
            asked = _decode(entry.value)
            refused = _refused(asked, used)
            if entry.id == call:
                return refused
            if not refused:
                used[asked.run] += asked.tasks
    return _refused(mine, used)  # some stores show a record a little after it was written


def _refused(asked: _Asked, used: Counter[str]) -> str:
    if used[asked.run] + asked.tasks > MOST_CHILDREN:
        return f"a run may delegate {MOST_CHILDREN} tasks"
    if used.total() + asked.tasks > MOST_IN_ALL:
        return f"a run and all runs of teams within it may delegate {MOST_IN_ALL} tasks"
    return ""
