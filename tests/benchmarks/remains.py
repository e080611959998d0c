"""What ended tasks leave on the server, made by the server itself: a million of them in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import redis

from queue_backends.redis.keys import Keys

PARTS = ("result", "stream", "journal", "usage")
"""Result and expiry, replay stream of two chunks, journal of one model call, its usage record."""
CHUNKS = ("chunks",)
"""A replay stream of a thousand chunks."""
PER_CALL = 5_000
SCRIPT = Path(__file__).with_suffix(".lua").read_text()
EXPIRY = Path(__file__).with_name("expiry.lua").read_text()


def leave(
    client: redis.Redis, count: int, parts: Sequence[str] = PARTS, *, chars: int = 0, queue: str = "agent-tasks"
) -> None:
    """Make the remains of so many tasks. `chars` is the length of a chunk of `CHUNKS`."""
    make = client.register_script(SCRIPT)
    per_call = 10 if parts == CHUNKS else PER_CALL
    for first in range(0, count, per_call):
        make(args=[first, min(per_call, count - first), " ".join(parts), chars, queue])


def expire(client: redis.Redis, *, most: int | None = None, since_ms: int = 0, queue: str = "agent-tasks") -> None:
    """Take away what tasks have left that ended after that time, or at most so many of them, the oldest first."""
    keys, forget = Keys(queue), client.register_script(EXPIRY)
    found = client.zrangebyscore(keys.results_expiry, f"({since_ms}", "+inf", start=0, num=-1 if most is None else most)
    ended, usage = cast("list[bytes]", found), "usage"
    for first in range(0, len(ended), PER_CALL):
        forget(
            keys=[keys.results, keys.results_expiry, keys.log(usage), keys.log_index(usage)],
            args=[keys.chunks(""), keys.log("journal/"), *ended[first : first + PER_CALL]],
        )
