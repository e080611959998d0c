"""Looking at a queue without changing it: states, figures, dead letters."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from queue_backends.errors import InvalidTask, QueueError
from queue_backends.interfaces import QueueStats, TaskState, TaskStatus
from queue_backends.messages import RUN_CANCELLED, DeadLetter, Priority, Task, TaskResult
from queue_backends.redis.client import RedisClient
from queue_backends.redis.entries import RawFields, pairs, task_of, unpacked
from queue_backends.redis.keys import GROUP, LANES, Keys
from queue_backends.redis.wire import decode_result

_ENTRY_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}|[0-9]{1,19}")
"""What the server takes as an entry's id."""


class PendingRow(NamedTuple):
    """An entry in somebody's hands."""

    entry_id: str
    consumer: str
    idle_ms: int
    deliveries: int


def _is_missing(error: QueueError) -> bool:
    """Whether there is no such stream or group: the server has lost its data, and no worker has pulled since."""
    return "NOGROUP" in str(error) or "no such key" in str(error)


async def pending(client: RedisClient, lane: str, *which: str | int) -> list[PendingRow]:
    """XPENDING's rows; none if there is no group."""
    try:
        reply = await client.command("XPENDING", lane, GROUP, *which)
    except QueueError as error:
        if not _is_missing(error):
            raise
        return []
    return [PendingRow(entry.decode(), consumer.decode(), idle_ms, count) for entry, consumer, idle_ms, count in reply]


async def status(client: RedisClient, keys: Keys, task_id: str) -> TaskStatus:
    """Where a task is: looked for at its end, in the delayed ones, and where its entry was last put. One that is no
    longer there may have gone elsewhere meanwhile: then all of them are looked at again."""
    looked_at: tuple[str, str] | None = None
    while True:
        result, due_ms, packed, moved = await client.pipeline(
            [
                ("HGET", keys.results, task_id),
                ("ZSCORE", keys.delayed, task_id),
                ("HGET", keys.delayed_entries, task_id),
                ("HGET", keys.moved, task_id),
            ]
        )
        if result:
            return ended(decode_result(task_id, result))
        if due_ms is not None:
            task = _readable(task_id, unpacked(packed)) if packed else None
            return TaskStatus(id=task_id, state=TaskState.DELAYED, task=task, due_at=float(due_ms) / 1000)
        place = _place(keys, task_id, moved)
        if not is_entry_id(place[1]) or place == looked_at:
            return TaskStatus(id=task_id, state=TaskState.UNKNOWN)
        entry, pending = await _entry(client, *place)
        if entry is not None:
            return _live(task_id, entry, pending)
        looked_at = place


def _place(keys: Keys, task_id: str, moved: bytes | None) -> tuple[str, str]:
    if moved and b"|" in moved:
        lane, _, entry_id = moved.decode().partition("|")
        return keys.lanes[int(lane) - 1], entry_id
    return keys.lanes[1], task_id


def is_entry_id(text: str) -> bool:
    """Whether the server would take this as an entry's id."""
    """Whether a task's id is one that a stream gave."""
    return _ENTRY_ID.fullmatch(text) is not None


async def _entry(client: RedisClient, lane: str, entry_id: str) -> tuple[RawFields | None, PendingRow | None]:
    found = await client.command("XRANGE", lane, entry_id, entry_id)
    rows = await pending(client, lane, entry_id, entry_id, 1) if found else []
    return (found[0][1] if found else None), (rows[0] if rows else None)


def _live(task_id: str, raw: RawFields, pending: PendingRow | None) -> TaskStatus:
    task = _readable(task_id, raw, crashes=pending.deliveries - 1 if pending else 0)
    if pending is None:
        return TaskStatus(id=task_id, state=TaskState.READY, task=task)
    return TaskStatus(
        id=task_id, state=TaskState.RUNNING, task=task, worker=pending.consumer, leased_s=pending.idle_ms / 1000
    )


def _readable(task_id: str, raw: RawFields, *, crashes: int = 0) -> Task | None:
    try:
        return task_of(task_id, raw, crashes=crashes)
    except InvalidTask:
        return None


def ended(result: TaskResult) -> TaskStatus:
    """The status that a result means."""
    state = TaskState.SUCCEEDED if result.ok else TaskState.FAILED
    if result.error == RUN_CANCELLED:
        state = TaskState.CANCELLED
    return TaskStatus(id=result.task_id, state=state, result=result)


_ENDED = {TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED}


async def list_tasks(client: RedisClient, keys: Keys, limit: int, states: Sequence[TaskState]) -> list[TaskStatus]:
    """Running, ready, delayed, then ended ones, up to `limit`."""
    wanted = set(states or TaskState)
    found: list[TaskStatus] = []
    if TaskState.RUNNING in wanted:
        found += await _running(client, keys, limit)
    if TaskState.READY in wanted and len(found) < limit:
        found += await _ready(client, keys, limit - len(found))
    if TaskState.DELAYED in wanted and len(found) < limit:
        names = await client.command("ZRANGE", keys.delayed, 0, limit - len(found) - 1)
        found += [await status(client, keys, name.decode(errors="replace")) for name in names]
    if wanted & _ENDED and len(found) < limit:
        found += await _ended(client, keys, limit - len(found), wanted)
    return found[:limit]


async def _running(client: RedisClient, keys: Keys, limit: int) -> list[TaskStatus]:
    found = []
    for lane in keys.lanes:
        for row in await pending(client, lane, "-", "+", limit):
            for _, raw in await client.command("XRANGE", lane, row.entry_id, row.entry_id):
                found.append(_live(_task_id(row.entry_id, raw), raw, row))
    return found


async def _ready(client: RedisClient, keys: Keys, limit: int) -> list[TaskStatus]:
    found = []
    for lane in keys.lanes:
        for entry_id, raw in await client.command(
            "XRANGE", lane, await _after_delivered(client, lane), "+", "COUNT", limit
        ):
            found.append(_live(_task_id(entry_id.decode(), raw), raw, None))
    return found


def _task_id(entry_id: str, raw: RawFields) -> str:
    original = dict(pairs(raw)).get(b"original_task_id")
    return original.decode(errors="replace") if original else entry_id


async def _after_delivered(client: RedisClient, lane: str) -> str:
    """The beginning of what no worker has received yet, as XRANGE takes it."""
    try:
        groups = await client.command("XINFO", "GROUPS", lane)
    except QueueError as error:
        if not _is_missing(error):
            raise
        return "-"
    for group in groups:
        facts = dict(zip(group[::2], group[1::2], strict=True))
        if facts[b"name"] == GROUP.encode():
            return f"({facts[b'last-delivered-id'].decode()}"
    return "-"


async def _ended(client: RedisClient, keys: Keys, limit: int, wanted: set[TaskState]) -> list[TaskStatus]:
    names = await client.command("ZREVRANGE", keys.results_expiry, 0, max(limit * 4, 200) - 1)
    if not names:
        return []
    results = await client.command("HMGET", keys.results, *names)
    found = [ended(decode_result(name.decode(), data)) for name, data in zip(names, results, strict=True) if data]
    return [item for item in found if item.state in wanted][:limit]


async def stats(client: RedisClient, keys: Keys) -> QueueStats:
    """A queue's figures: a fixed number of commands, none of which looks at the waiting tasks themselves."""
    commands: list[tuple[Any, ...]] = [
        ("ZCARD", keys.delayed),
        ("XLEN", keys.dead),
        ("EXISTS", keys.paused),
    ]
    commands += [("XLEN", lane) for lane in keys.lanes]
    asking = [("XPENDING", lane, GROUP) for lane in keys.lanes]
    try:
        delayed, dead, paused, *figures = await client.pipeline([*commands, *asking])
    except QueueError as error:
        if not _is_missing(error):
            raise
        delayed, dead, paused, *figures = await client.pipeline(commands) + [[0]] * len(asking)
    lengths, summaries = figures[:3], figures[3:]
    running = [summary[0] for summary in summaries]
    ready = {priority: max(0, length - held) for priority, length, held in zip(LANES, lengths, running, strict=True)}
    return QueueStats(
        ready=sum(ready.values()),
        running=sum(running),
        delayed=delayed,
        dead=dead,
        ready_by_priority=ready,
        oldest_ready_age_s=await _oldest_age(client, keys, ready),
        paused=bool(paused),
    )


async def _oldest_age(client: RedisClient, keys: Keys, ready: dict[Priority, int]) -> float | None:
    born_ms: list[int] = []
    for lane, priority in zip(keys.lanes, LANES, strict=True):
        if ready[priority]:
            start = await _after_delivered(client, lane)
            for entry_id, _ in await client.command("XRANGE", lane, start, "+", "COUNT", 1):
                born_ms.append(int(entry_id.decode().partition("-")[0]))
    return max(0.0, time.time() - min(born_ms) / 1000) if born_ms else None


async def dead_letters(client: RedisClient, keys: Keys, limit: int) -> list[DeadLetter]:
    """Letters, newest first."""
    return [_letter(*entry) for entry in await client.command("XREVRANGE", keys.dead, "+", "-", "COUNT", limit)]


async def letters_by_id(client: RedisClient, keys: Keys, ids: Sequence[str]) -> list[DeadLetter]:
    """Those letters that are there."""
    good = [letter_id for letter_id in ids if is_entry_id(letter_id)]
    pages = await client.pipeline([("XRANGE", keys.dead, letter_id, letter_id) for letter_id in good]) if good else []
    return [_letter(*entry) for page in pages for entry in page]


def _letter(letter_id: bytes, raw: RawFields) -> DeadLetter:
    fields = dict(pairs(raw))
    text = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in fields.items()}
    entry = unpacked(fields.get(b"entry"))
    attempt = text.get("attempt", "0")
    return DeadLetter(
        id=letter_id.decode(),
        task_id=text.get("original_task_id") or text.get("task_id", ""),
        error=text.get("error", ""),
        prompt=text.get("prompt", ""),
        attempt=int(attempt) if attempt.isascii() and attempt.isdigit() and len(attempt) < 10 else 0,
        fields={name.decode(errors="replace"): value.decode(errors="replace") for name, value in pairs(entry)},
        dead_at=int(letter_id.partition(b"-")[0]) / 1000,
    )
