"""Lists of runs, page by page. A run that begins between two pages shifts the others; the last run of the page before
shows where to go on."""

from __future__ import annotations

import base64
import binascii

import msgspec
from msgspec import Struct

from worker.gateway.operation import Call
from worker.gateway.problem import Problem
from worker.gateway.run_views import RunListItem, RunPage, RunsQuery

_MOST_LISTED = 1000
"""As deep as the store lists."""
_SHIFT = 50


class _Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    position: int = 0
    last_id: str = ""


async def list_runs(call: Call, query: RunsQuery) -> RunPage:
    """One page. Raises `Problem` 400 for a cursor that is none."""
    caller, cursor = call.caller, _decoded(query.cursor)
    if caller.app or (caller.tenant and query.tenant not in ("", caller.tenant)):
        return RunPage(runs=())
    depth = min(_MOST_LISTED, cursor.position + query.limit + 1 + (_SHIFT if cursor.position else 0))
    found = await call.gateway.runs.list(
        limit=depth, team=query.team, tenant=caller.tenant or query.tenant or None, phases=query.phase
    )
    place = next((number for number, run in enumerate(found, 1) if run.id == cursor.last_id), cursor.position)
    page = found[place : place + query.limit]
    end = place + len(page)
    more = _encoded(end, page[-1].id) if page and end < len(found) else None
    return RunPage(runs=[RunListItem.of(run) for run in page], next_cursor=more)


def _encoded(position: int, last_id: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(_Cursor(position, last_id))).decode().rstrip("=")


def _decoded(text: str) -> _Cursor:
    if not text:
        return _Cursor()
    try:
        raw = base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
        cursor = msgspec.json.decode(raw, type=_Cursor)
    except (binascii.Error, msgspec.MsgspecError, UnicodeError, ValueError):
        cursor = _Cursor(-1)
    if not 0 <= cursor.position <= _MOST_LISTED:
        raise Problem(400, "cursor is none that this list gave: begin without one", code="invalid_cursor")
    return cursor
