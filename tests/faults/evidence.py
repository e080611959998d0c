"""What is left after a run, read without any of the product's code: plain redis-py, diaries, log files."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import redis
import redis.asyncio
from msgspec import Struct

from tests.faults.diaries import Call, Effect, Injected
from tests.faults.worker_slot import Death
from tests.faults.workload import Submission, View

GROUP = "agent-workers"
PAGE = 500
LOG_ALARMS = re.compile(
    r"Traceback|unhandled|unforeseen|Task exception was never retrieved|was never awaited|could not be handed back"
    r"|unexpected \w+:|refused a result|cannot be published|Fatal Python error"
)
"""What never belongs into a worker's log, whatever happens to it."""


class Entry(Struct, frozen=True):
    """One entry of a task's replay stream."""

    id: str
    chunk: dict[str, Any]


class Letter(Struct, frozen=True):
    """A dead letter."""

    task_id: str
    error: str


class Evidence(Struct, kw_only=True):
    """All that the checks look at: plain data, so that a test can make up whatever it likes."""

    queue: str
    lease_s: float
    submissions: Sequence[Submission] = ()
    results: Mapping[str, dict[str, Any]] = {}
    """Task id -> result."""
    letters: Sequence[Letter] = ()
    streams: Mapping[str, Sequence[Entry]] = {}
    """Task id -> its chunks."""
    lists: Mapping[str, Sequence[str]] = {}
    """Name of an ark list -> its items, as far as they have not expired."""
    ledger: Mapping[str, dict[str, Any]] = {}
    """Record id -> usage record."""
    counters: Mapping[str, Mapping[str, int]] = {}
    """Name of a counter set -> its fields."""
    lifetimes: Mapping[str, float | None] = {}
    """Key -> seconds until it expires; None: never."""
    waiting: Mapping[str, int] = {}
    """What should be empty in the end -> how much is in it."""
    calls: Sequence[Call] = ()
    effects: Sequence[Effect] = ()
    faults: Sequence[Injected] = ()
    views: Mapping[str, View] = {}
    announced: Mapping[str, int] = {}
    deaths: Sequence[Death] = ()
    alarms: Sequence[str] = ()
    """Lines of workers' logs that should not be there."""


def read_redis(port: int, queue: str, lease_s: float) -> Evidence:
    """Everything that the queue's keys say."""
    client = redis.Redis(port=port, socket_timeout=30)
    try:
        keys = sorted(key.decode() for key in client.scan_iter(count=1000))
        pttls = client.pipeline(transaction=False)
        for key in keys:
            pttls.pttl(key)
        lifetimes = {
            key: None if ms == -1 else ms / 1000 for key, ms in zip(keys, pttls.execute(), strict=True) if ms != -2
        }
        return Evidence(
            queue=queue,
            lease_s=lease_s,
            results=_json_hash(client, f"{queue}-results"),
            letters=_letters(client, f"{queue}-dead"),
            streams=_streams(client, f"{queue}:chunks:", keys),
            lists=_lists(client, f"{queue}:list:", keys),
            ledger=_json_hash(client, f"{queue}:state:log:usage"),
            counters=_counters(client, f"{queue}:state:counters:", keys),
            lifetimes=lifetimes,
            waiting=_waiting(client, queue),
        )
    finally:
        client.close()


def _json_hash(client: redis.Redis, key: str) -> dict[str, dict[str, Any]]:
    return {name.decode(): msgspec.json.decode(value) for name, value in client.hscan_iter(key, count=1000)}


def _letters(client: redis.Redis, key: str) -> list[Letter]:
    entries: Any = client.xrange(key)
    return [
        Letter((fields.get(b"original_task_id") or fields[b"task_id"]).decode(), fields[b"error"].decode())
        for _, fields in entries
    ]


def _streams(client: redis.Redis, prefix: str, keys: Sequence[str]) -> dict[str, list[Entry]]:
    names = [key for key in keys if key.startswith(prefix)]
    streams: dict[str, list[Entry]] = {}
    for start in range(0, len(names), PAGE):
        page = names[start : start + PAGE]
        reads = client.pipeline(transaction=False)
        for name in page:
            reads.xrange(name)
        for name, entries in zip(page, reads.execute(), strict=True):
            streams[name.removeprefix(prefix)] = [
                Entry(entry.decode(), msgspec.json.decode(fields[b"chunk"])) for entry, fields in entries
            ]
    return streams


def _lists(client: redis.Redis, prefix: str, keys: Sequence[str]) -> dict[str, list[str]]:
    found = {}
    for key in (key for key in keys if key.startswith(prefix)):
        items: Any = client.lrange(key, 0, -1)
        found[key] = [item.decode() for item in items]
    return found


def _counters(client: redis.Redis, prefix: str, keys: Sequence[str]) -> dict[str, dict[str, int]]:
    found = {}
    for key in (key for key in keys if key.startswith(prefix)):
        fields: Any = client.hgetall(key)
        found[key.removeprefix(prefix)] = {name.decode(): int(value) for name, value in fields.items()}
    return found


def _waiting(client: redis.Redis, queue: str) -> dict[str, int]:
    waiting = {}
    for lane in (f"{queue}:high", queue, f"{queue}:low"):
        waiting[f"entries in {lane}"] = client.xlen(lane)
        waiting[f"pending in {lane}"] = client.xpending(lane, GROUP)["pending"] if client.exists(lane) else 0
    waiting["delayed tasks"] = client.zcard(f"{queue}:delayed")
    waiting["delayed entries"] = client.hlen(f"{queue}:delayed-entries")
    waiting["moved tasks"] = client.hlen(f"{queue}:moved")
    waiting["tasks to be cancelled"] = client.zcard(f"{queue}:cancelled")
    waiting["results without an end time"] = abs(
        client.hlen(f"{queue}-results") - client.zcard(f"{queue}:results-expiry")
    )
    return waiting


async def settled(port: int, queue: str, ids: Sequence[str], *, within_s: float) -> list[str]:
    """Wait until all these tasks have a result; returns those that have none when the time is over."""
    client = redis.asyncio.Redis(port=port, socket_timeout=5)
    missing = list(ids)
    try:
        async with asyncio.timeout(within_s):
            while missing:
                found = await client.hmget(f"{queue}-results", missing)
                missing = [task_id for task_id, result in zip(missing, found, strict=True) if result is None]
                await asyncio.sleep(0.2)  # a foreign reader has no event to wait for
    except TimeoutError:
        return missing
    finally:
        await client.aclose()
    return missing


def read_alarms(folder: Path) -> list[str]:
    """Log lines of any worker that should not be there."""
    return [
        f"{path.name}: {line[:600]}"
        for path in sorted(folder.glob("w*.log"))
        for line in path.read_text(errors="replace").splitlines()
        if LOG_ALARMS.search(line)
    ]
