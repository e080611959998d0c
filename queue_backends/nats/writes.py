"""A message to be kept, with what must be true for it."""

from __future__ import annotations

import math

from msgspec import Struct

MOST_PER_BATCH = 900
"""The server takes a thousand messages in one batch."""
MOST_MESSAGE_BYTES = 32 * 1024 * 1024 - 64 * 1024
"""The server keeps no longer message, whatever it lets through."""
SHORTEST_LIFETIME_S = 1

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_OF = "Nats-Expected-Last-Subject-Sequence-Subject"


class Write(Struct):
    """A message to be kept. `expected` is the revision that must be the last one of the subject (0: there is none);
    with `expected_of`, of that subject instead."""

    subject: str
    data: bytes = b""
    expected: int | None = None
    expected_of: str = ""
    ttl_s: float | None = None
    headers: dict[str, str] | None = None

    def all_headers(self) -> dict[str, str]:
        """As they travel."""
        headers = dict(self.headers) if self.headers else {}
        if self.expected is not None:
            headers[EXPECTED] = str(self.expected)
            if self.expected_of:
                headers[EXPECTED_OF] = self.expected_of
        if self.ttl_s is not None:
            headers["Nats-TTL"] = f"{max(SHORTEST_LIFETIME_S, math.ceil(self.ttl_s))}s"
        return headers
