"""Chunks of tasks that ended long ago. Messages get their lifetimes when written; these are known at the end only."""

from __future__ import annotations

import time

from queue_backends.nats.ledger import Ledger

REAP_EVERY_S = 60.0
MOST_AT_ONCE = 100


class Reaper:
    """Deletes streams of chunks whose retention is over, oldest first. Every worker does it now and then."""

    def __init__(self, ledger: Ledger, retention_s: float) -> None:
        self._ledger = ledger
        self._subjects = ledger.subjects
        self._retention_s = retention_s
        self._next_at = time.monotonic() + min(REAP_EVERY_S, retention_s)

    async def reap_now_and_then(self) -> None:
        """At most once a minute, a bounded number."""
        if time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + min(REAP_EVERY_S, self._retention_s)
        await self.reap()

    async def reap(self) -> None:
        """Delete what is due."""
        found, _ = await self._ledger.page(self._subjects.reaps, limit=MOST_AT_ONCE)
        for stored in found:
            if stored.at + self._retention_s > self._ledger.now():
                return
            # A task that was brought back since has newer chunks: those stay.
            await self._ledger.purge(self._subjects.chunks(stored.name), before=stored.revision + 1)
            await self._ledger.purge(stored.subject, before=stored.revision + 1)
