"""What ended tasks leave on the server, made by the server itself: a million of them in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import redis

PARTS = ("result", "stream", "journal", "usage")
"""Result and expiry, replay stream of two chunks, journal of one model call, its usage record."""
CHUNKS = ("chunks",)
"""A replay stream of a thousand chunks."""
GONE = ("gone",)
"""What the first of them have left is taken away, as when its time is over."""
PER_CALL = 5_000
SCRIPT = Path(__file__).with_suffix(".lua").read_text()


def leave(
    client: redis.Redis, count: int, parts: Sequence[str] = PARTS, *, chars: int = 0, queue: str = "agent-tasks"
) -> None:
    """Make the remains of so many tasks. `chars` is the length of a chunk of `CHUNKS`."""
    make = client.register_script(SCRIPT)
    per_call = 10 if parts == CHUNKS else PER_CALL
    for first in range(0, count, per_call):
        make(args=[first, min(per_call, count - first), " ".join(parts), chars, queue])
