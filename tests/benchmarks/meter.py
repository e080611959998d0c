"""What the server has done between two moments: figures that do not depend on how busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis

GREETINGS = frozenset({"hello", "auth", "select", "client|setinfo", "client|setname", "client|id"})
"""Commands of a new connection."""
OWN = GREETINGS | {"info", "hlen"}
"""With those that the harness itself sends while it looks."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The server's counters at one moment."""

    at_s: float
    calls: Mapping[str, int]
    """Command -> calls so far, those inside scripts included."""
    cpu_s: float
    bytes_in: int
    bytes_out: int
    memory: int
    """Bytes of data and of what manages it, as the server counts them."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What was done between two readings."""

    seconds: float
    calls: Mapping[str, int]
    cpu_s: float
    bytes_in: int
    bytes_out: int
    memory: int
    """How much it has grown."""

    @property
    def commands(self) -> int:
        """All that was carried out, inside scripts and outside."""
        return sum(count for name, count in self.calls.items() if name not in OWN)

    @property
    def scripts(self) -> int:
        """Script calls, which are nearly all that a worker sends."""
        return self.calls.get("evalsha", 0)

    @property
    def cpu_us(self) -> float:
        return self.cpu_s * 1e6


def read(client: redis.Redis) -> Reading:
    """One look at the server."""
    facts: dict[str, Any] = client.info("everything")
    calls = {
        name.removeprefix("cmdstat_"): int(stats["calls"])
        for name, stats in facts.items()
        if name.startswith("cmdstat_")
    }
    return Reading(
        at_s=time.monotonic(),
        calls=calls,
        cpu_s=float(facts["used_cpu_user"]) + float(facts["used_cpu_sys"]),
        bytes_in=int(facts["total_net_input_bytes"]),
        bytes_out=int(facts["total_net_output_bytes"]),
        memory=int(facts["used_memory_dataset"]) + int(facts["used_memory_overhead"]),
    )


def between(before: Reading, after: Reading) -> Work:
    """The difference of two readings."""
    calls = {name: count - before.calls.get(name, 0) for name, count in after.calls.items()}
    return Work(
        seconds=after.at_s - before.at_s,
        calls={name: count for name, count in calls.items() if count},
        cpu_s=after.cpu_s - before.cpu_s,
        bytes_in=after.bytes_in - before.bytes_in,
        bytes_out=after.bytes_out - before.bytes_out,
        memory=after.memory - before.memory,
    )
