"""A server that holds much, and still holds it after a worker has been measured there: so it can be measured again."""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Any, NamedTuple

import redis

from queue_backends.redis.keys import Keys
from tests.benchmarks.contenders import SHOAL
from tests.benchmarks.meter import between, read
from tests.benchmarks.peers.protocol import TEXT
from tests.benchmarks.programs import DriverFailed, Program
from tests.benchmarks.remains import expire
from tests.benchmarks.rows.watching import GROUP, QUEUE, metered_drain
from tests.benchmarks.servers import Server

LOAD = "tests.benchmarks.drivers.load"
LISTS = tuple(Keys(QUEUE).listing(family) for family in ("objects/", "remote/", "settings:"))
"""Of the families that a worker reads when it starts."""
BEGUN_WITHIN_S = 10.0
MOST_HELD = 10_000


class Point(NamedTuple):
    """What a worker did."""

    per_s: float
    worker_us: float
    server_us: float
    commands: float
    scripts: float


class Standing:
    """A server whose queue has had a worker, and so many tasks that wait before each drain and after it."""

    def __init__(self, server: Server, *, drained: int, waiting: int = 0) -> None:
        self.server = server
        self.waiting_bytes = 0.0
        self._drained, self._waiting = drained, waiting
        _begin_queue(server)
        if waiting:
            self.waiting_bytes = fill(server, waiting, len(TEXT))

    def drain(self) -> Point:
        """Have a new worker do as many tasks as were added for it; what they leave is taken away then, as on a server
        in use as much expires as comes."""
        client = self.server.client
        fill(self.server, self._waiting + self._drained - _length(client), len(TEXT))
        before, began_ms = SHOAL.finished(client, 0), _now_ms(client)
        contender = dataclasses.replace(SHOAL, finished=lambda *looked: SHOAL.finished(*looked) - before)
        with SHOAL.program("work", self.server, concurrency=100, job="noop") as worker:
            worker.line("READY", 60)
            seen, work = metered_drain(
                contender, self.server, worker, total=self._waiting + self._drained, until=self._drained
            )
        expire(client, since_ms=began_ms)
        _drop_held(client)
        done = seen.last.finished - seen.first.finished
        return Point(seen.per_s, seen.cpu_us, work.cpu_us / done, work.commands / done, work.scripts / done)


def fill(server: Server, count: int, prompt_bytes: int) -> float:
    """Submit so many tasks in bulk; returns the server's bytes for each."""
    before = read(server.client)
    flags = ["fill", "--url", server.url, "--count", str(count), "--prompt-bytes", str(prompt_bytes)]
    with Program(sys.executable, LOAD, flags) as producer:
        producer.figures(300)
    return between(before, read(server.client)).memory / count


def _begin_queue(server: Server) -> None:
    """A queue's very first worker looks at all keys once, to list those of some families. Where a million tasks have
    ended that was long ago, when there were few."""
    deadline = time.monotonic() + BEGUN_WITHIN_S
    with SHOAL.program("work", server, concurrency=1, job="noop") as worker:
        worker.line("READY", 60)
        while not all(server.client.hexists(name, "") for name in LISTS):
            if time.monotonic() > deadline:
                raise DriverFailed(f"the first worker of a queue has not made {LISTS} in {BEGUN_WITHIN_S:.0f} s")
            time.sleep(0.05)


def _drop_held(client: redis.Redis) -> None:
    """What a worker had when it was stopped: the next one would find it in the middle of its measurement."""
    held: Any = client.xpending_range(QUEUE, GROUP, "-", "+", MOST_HELD)
    if entries := [row["message_id"] for row in held]:
        client.xack(QUEUE, GROUP, *entries)
        client.xdel(QUEUE, *entries)


def _length(client: redis.Redis) -> int:
    length: Any = client.xlen(QUEUE)
    return int(length)


def _now_ms(client: redis.Redis) -> int:
    now: Any = client.time()
    return int(now[0]) * 1000 + int(now[1]) // 1000
