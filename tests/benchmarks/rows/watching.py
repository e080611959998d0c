"""Looking at a queue from outside while a worker empties it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from tests.benchmarks.contenders import Contender
from tests.benchmarks.meter import Work, between, read
from tests.benchmarks.programs import DriverFailed, Program
from tests.benchmarks.servers import Server

QUEUE, GROUP = "agent-tasks", "agent-workers"


def pending(client: redis.Redis) -> int:
    """How many tasks are running, as the server sees it."""
    summary: Any = client.xpending(QUEUE, GROUP)
    return int(summary["pending"])


@dataclass(frozen=True, kw_only=True)
class Sight:
    """The queue at one moment."""

    at_s: float
    finished: int
    cpu_s: float


@dataclass(frozen=True, kw_only=True)
class Drain:
    """From the first moment at which a result was there until so many were."""

    first: Sight
    last: Sight

    @property
    def per_s(self) -> float:
        return (self.last.finished - self.first.finished) / (self.last.at_s - self.first.at_s)

    @property
    def cpu_us(self) -> float:
        """Worker CPU for each task, in microseconds."""
        return (self.last.cpu_s - self.first.cpu_s) * 1e6 / (self.last.finished - self.first.finished)

    @property
    def seconds(self) -> float:
        return self.last.at_s - self.first.at_s


class Crew:
    """Several workers, looked at as one."""

    def __init__(self, workers: Sequence[Program]) -> None:
        self._workers = workers

    def cpu_s(self) -> float:
        """Of all of them together."""
        return sum(worker.cpu_s() for worker in self._workers)

    def alive(self) -> bool:
        """Whether none has ended."""
        return all(worker.alive() for worker in self._workers)


def metered_drain(
    contender: Contender, server: Server, worker: Program | Crew, *, total: int, until: int
) -> tuple[Drain, Work]:
    """As `drain`, with what the server did meanwhile."""
    first = _await(contender, server, worker, total, 1)
    before = read(server.client)
    last = _await(contender, server, worker, total, until)
    return Drain(first=first, last=last), between(before, read(server.client))


def drain(contender: Contender, server: Server, worker: Program | Crew, *, total: int, until: int) -> Drain:
    """Watch until `until` of `total` tasks have a result. Raises `DriverFailed` if nothing moves for 60 seconds."""
    first = _await(contender, server, worker, total, 1)
    return Drain(first=first, last=_await(contender, server, worker, total, until))


def _await(contender: Contender, server: Server, worker: Program | Crew, total: int, wanted: int) -> Sight:
    seen, moved_at = -1, time.monotonic()
    while True:
        finished = contender.finished(server.client, total)
        now = time.monotonic()
        if finished >= wanted:
            return Sight(at_s=now, finished=finished, cpu_s=worker.cpu_s())
        if finished != seen:
            seen, moved_at = finished, now
        elif now - moved_at > 60 or not worker.alive():
            raise DriverFailed(
                f"{contender.name}: {finished} of {wanted} results after {now - moved_at:.0f} s of silence"
            )
        time.sleep(0.002)


def settled_kib(worker: Program, *, quiet_s: float = 1.0, within_s: float = 30.0) -> float:
    """The worker's memory once it has not changed by more than 64 KiB for `quiet_s`."""
    deadline, size, since = time.monotonic() + within_s, worker.resident_kib(), time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.05)
        now = worker.resident_kib()
        if abs(now - size) > 64:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > quiet_s:
            return now
    return worker.resident_kib()
