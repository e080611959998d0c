"""Lists of tasks, page by page.

Who is bound to a tenant gets what gateways took for it, the newest first; everybody else gets what the queue lists.
Neither is a snapshot: a task that changes its state between two pages may be on both or on none. A page looks at a
bounded number of tasks, so that one with few hits, or none, may still have a `next_cursor`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Struct

from queue_backends import TaskState, TaskStatus
from worker.gateway.list_cursor import decode_cursor, encode_cursor
from worker.gateway.operation import Call
from worker.gateway.ownership import TaskRecord, may_see, read_record, records_of
from worker.gateway.task_views import ListQuery, TaskPage, TaskView, view_of

MOST_LISTED = 10_000
"""No page reaches deeper into the queue."""
_LOOKED_AT = 1000
"""So many tasks are looked at for one page of a filtered list."""
_AT_ONCE = 100
_REMEMBERED = 8
_SHIFT = 50
"""So many tasks may have come before the last one of the page before, and it is still found."""

Item = TaskStatus | TaskRecord
Found = tuple[TaskStatus, TaskRecord | None]


class _Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    position: int = 0
    """How many tasks were passed."""
    last_ids: tuple[str, ...] = ()
    """The last ones of them: if one has gone meanwhile, the one before it shows where to go on."""


async def list_tasks(call: Call, query: ListQuery) -> TaskPage:
    """One page. Raises `Problem` 400 for a cursor that is none."""
    cursor = decode_cursor(query.cursor, _Cursor, most=MOST_LISTED)
    tenant = call.caller.tenant
    if tenant and query.tenant not in ("", tenant):
        return TaskPage(tasks=())
    is_filtered = bool(call.caller.app or query.agent or query.session_id or query.tenant or (tenant and query.state))
    depth = min(MOST_LISTED, cursor.position + _SHIFT + (_LOOKED_AT if is_filtered else query.limit + 1))
    items = await _items(call, query, depth)
    start = _start([item.id for item in items], cursor)
    return await _page(call, query, items, start, is_cut=len(items) >= depth)


async def _items(call: Call, query: ListQuery, depth: int) -> Sequence[Item]:
    if call.caller.tenant:
        return await records_of(call.gateway.backend.state, call.caller.tenant, limit=depth)
    states = query.state or tuple(state for state in TaskState if state is not TaskState.UNKNOWN)
    return await call.gateway.backend.queue.list_tasks(limit=depth, states=states)


async def _page(call: Call, query: ListQuery, items: Sequence[Item], start: int, *, is_cut: bool) -> TaskPage:
    views: list[TaskView] = []
    position = start
    while position < len(items) and len(views) < query.limit:
        for found in await _looked_at(call, items[position : position + _AT_ONCE]):
            position += 1
            view = view_of(*found, preview=True)
            if _fits(view, query) and may_see(call, view.tenant, view.agent, found[1]):
                views.append(view)
            if len(views) == query.limit:
                break
    more = position < len(items) or (is_cut and position < MOST_LISTED)
    last_ids = tuple(item.id for item in items[max(0, position - _REMEMBERED) : position])
    return TaskPage(tasks=views, next_cursor=encode_cursor(_Cursor(position, last_ids)) if more and position else None)


async def _looked_at(call: Call, items: Sequence[Item]) -> list[Found]:
    """What the queue knows and what was noted, of each: each in one round trip, or in one for each that has ended."""
    backend = call.gateway.backend
    records = [item for item in items if isinstance(item, TaskRecord)]
    if records:
        return list(zip(await backend.queue.status([record.id for record in records]), records, strict=True))
    statuses = [item for item in items if isinstance(item, TaskStatus)]
    noted = await asyncio.gather(*(_noted(call, status) for status in statuses))
    return list(zip(statuses, noted, strict=True))


async def _noted(call: Call, status: TaskStatus) -> TaskRecord | None:
    return None if status.task is not None else await read_record(call.gateway.backend.state, status.id)


def _fits(view: TaskView, query: ListQuery) -> bool:
    return (
        view.state is not TaskState.UNKNOWN
        and (not query.state or view.state in query.state)
        and query.agent in ("", view.agent)
        and query.tenant in ("", view.tenant)
        and query.session_id in ("", view.session_id)
    )


def _start(ids: Sequence[str], cursor: _Cursor) -> int:
    """Behind the last task of the page before that is still there, wherever it is now; or else at the same place."""
    places = {task_id: place for place, task_id in enumerate(ids)}
    known = [places[task_id] for task_id in cursor.last_ids if task_id in places]
    return known[-1] + 1 if known else min(cursor.position, len(ids))
