"""A queue's Redis keys, read without any of the product's code: plain redis-py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import redis

from queue_backends import Chunk
from tests.faults.brokers.broker import Inside
from tests.faults.evidence import Letter, Told

GROUP = "agent-workers"
PAGE = 500
LISTS = frozenset({f":state:list:{family}" for family in ("objects", "remote", "session-waiting", "settings")})
"""The keys of small families of state that are kept for good."""
STRUCTURE = frozenset(
    {
        "",  # the task stream; entries go when they are acknowledged
        ":high",
        ":low",
        "-results",  # each field goes after the retention time
        ":results-expiry",  # when each result goes
        "-dead",  # the dead letters, capped by number
        ":delayed",  # retries and scheduled tasks, until they are due
        ":delayed-entries",
        ":moved",  # where a task's entry is, until the task ends
        ":paused",  # exists while the queue is paused
        *LISTS,
    }
)
"""What follows the queue's name in the names of keys that have no end of their own."""


class RedisKeys:
    """One queue's keys on one server."""

    def __init__(self, client: redis.Redis, queue: str) -> None:
        self._client = client
        self._queue = queue
        self._keys = sorted(key.decode() for key in client.scan_iter(count=1000))

    def inside(self, told: Told) -> Inside:
        """Everything that the keys say, and where it is not what was told."""
        queue = self._queue
        return Inside(
            lists=self._lists(f"{queue}:list:"),
            lifetimes=self._lifetimes(),
            left_over=self._left_over(),
            told_otherwise=[
                *_differences("result", self._json_hash(f"{queue}-results"), told.results, _as_told),
                *_differences("usage record", self._json_hash(f"{queue}:state:log:usage"), told.ledger),
                *_differences("counters", self._counters(f"{queue}:state:counters:usage:"), told.counters),
                *_letter_differences(self._letters(), told.letters),
                *self._stream_differences(f"{queue}:chunks:", told.streams),
            ],
        )

    def _lifetimes(self) -> dict[str, float | None]:
        pttls = self._client.pipeline(transaction=False)
        for key in self._keys:
            pttls.pttl(key)
        found = zip(self._keys, pttls.execute(), strict=True)
        return {key: None if ms == -1 else ms / 1000 for key, ms in found if ms != -2}

    def _json_hash(self, key: str) -> dict[str, Any]:
        return {name.decode(): msgspec.json.decode(value) for name, value in self._client.hscan_iter(key, count=1000)}

    def _letters(self) -> list[Letter]:
        entries: Any = self._client.xrange(f"{self._queue}-dead")
        return [
            Letter((fields.get(b"original_task_id") or fields[b"task_id"]).decode(), fields[b"error"].decode())
            for _, fields in entries
        ]

    def _lists(self, prefix: str) -> dict[str, list[str]]:
        found = {}
        for key in self._named(prefix):
            items: Any = self._client.lrange(key, 0, -1)
            found[key] = [item.decode() for item in items]
        return found

    def _counters(self, prefix: str) -> dict[str, dict[str, int]]:
        found = {}
        for key in self._named(prefix):
            fields: Any = self._client.hgetall(key)
            name = "usage:" + key.removeprefix(prefix)
            found[name] = {field.decode(): int(amount) for field, amount in fields.items()}
        return found

    def _left_over(self) -> dict[str, int]:
        client, queue = self._client, self._queue
        found = {}
        for lane in (f"{queue}:high", queue, f"{queue}:low"):
            found[f"entries in {lane}"] = client.xlen(lane)
            found[f"pending in {lane}"] = client.xpending(lane, GROUP)["pending"] if client.exists(lane) else 0
        found["delayed tasks' names"] = client.zcard(f"{queue}:delayed")
        found["delayed entries"] = client.hlen(f"{queue}:delayed-entries")
        found["moved tasks"] = client.hlen(f"{queue}:moved")
        found["tasks to be cancelled"] = client.zcard(f"{queue}:cancelled")
        ends = client.zcard(f"{queue}:results-expiry")
        found["results without an end time"] = abs(client.hlen(f"{queue}-results") - ends)
        return found

    def _stream_differences(self, prefix: str, told: Mapping[str, Sequence[dict[str, Any]]]) -> Iterator[str]:
        names = self._named(prefix)
        for name in told.keys() - {name.removeprefix(prefix) for name in names}:
            yield f"chunks of {name} were told, and are not kept"
        for start in range(0, len(names), PAGE):
            page = names[start : start + PAGE]
            reads = self._client.pipeline(transaction=False)
            for name in page:
                reads.xrange(name)
            for name, entries in zip(page, reads.execute(), strict=True):
                task_id = name.removeprefix(prefix)
                yield from _stream_difference(task_id, entries, told.get(task_id, ()))

    def _named(self, prefix: str) -> list[str]:
        return [key for key in self._keys if key.startswith(prefix)]


def _stream_difference(task_id: str, entries: Any, told: Sequence[dict[str, Any]]) -> Iterator[str]:
    kept = [msgspec.json.decode(fields[b"chunk"], type=Chunk) for _, fields in entries]
    misplaced = [entry for (entry, _), chunk in zip(entries, kept, strict=True) if entry != b"%d-0" % (chunk.seq + 1)]
    if misplaced:
        yield f"chunks of {task_id} stand at the wrong place: {misplaced[0].decode()}"
    if kept != [msgspec.convert(chunk, Chunk) for chunk in told]:
        yield f"chunks of {task_id}: {len(kept)} are kept, {len(told)} were told, and they are not the same"


def _as_told(result: dict[str, Any]) -> dict[str, Any]:
    amounts = {field: result.get(field, 0) for field in ("input_tokens", "output_tokens")}
    return {"result": result.get("result", ""), "error": result.get("error", ""), **amounts}


def _differences(what: str, kept: dict[str, Any], told: Mapping[str, Any], reading: Any = None) -> Iterator[str]:
    for name in kept.keys() | told.keys():
        there = kept.get(name)
        expected = reading(there) if reading and there is not None else there
        if expected != told.get(name):
            yield f"{what} {name} is {str(expected)[:300]}, told was {str(told.get(name))[:300]}"


def _letter_differences(kept: Sequence[Letter], told: Sequence[Letter]) -> Iterator[str]:
    odd = set(kept) ^ set(told)
    if odd or len(kept) != len(told):
        yield f"{len(kept)} dead letters are kept, {len(told)} were told; on one side only: {list(odd)[:3]}"
