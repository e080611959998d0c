"""Lists of runs, page by page. A run that begins between two pages shifts the others; the last run of the page before
shows where to go on."""

from __future__ import annotations

from msgspec import Struct

from worker.gateway.list_cursor import decode_cursor, encode_cursor
from worker.gateway.operation import Call
from worker.gateway.run_views import RunListItem, RunPage, RunsQuery

_MOST_LISTED = 1000
"""As deep as the store lists."""
_SHIFT = 50


class _Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    position: int = 0
    last_id: str = ""


async def list_runs(call: Call, query: RunsQuery) -> RunPage:
    """One page. Raises `Problem` 400 for a cursor that is none."""
    caller, cursor = call.caller, decode_cursor(query.cursor, _Cursor, most=_MOST_LISTED)
    if caller.app or (caller.tenant and query.tenant not in ("", caller.tenant)):
        return RunPage(runs=())
    depth = min(_MOST_LISTED, cursor.position + query.limit + 1 + (_SHIFT if cursor.position else 0))
    found = await call.gateway.run_changes.list(
        0 if cursor.position else query.version,
        limit=depth,
        team=query.team,
        tenant=caller.tenant or query.tenant or None,
        phases=query.phase,
    )
    place = next((number for number, run in enumerate(found, 1) if run.id == cursor.last_id), cursor.position)
    page = found[place : place + query.limit]
    end = place + len(page)
    more = encode_cursor(_Cursor(end, page[-1].id)) if page and end < len(found) else None
    return RunPage(runs=[RunListItem.of(run) for run in page], next_cursor=more)
