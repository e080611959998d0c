"""`{q}:health-check`: what `arq --check` and arq's own dashboards read."""

from __future__ import annotations

import time
from datetime import datetime

from queue_backends.arq.commit import ArqCommitter
from queue_backends.arq.names import ArqKeys
from queue_backends.redis.client import RedisClient

EVERY_S = 10.0
KEPT_MS = 31_000
"""A worker whose line is older than this is held up, or gone."""


class Health:
    """Writes a line of figures, as arq's workers do; workers of one queue share it."""

    def __init__(self, client: RedisClient, keys: ArqKeys, committer: ArqCommitter) -> None:
        self._client = client
        self._keys = keys
        self._committer = committer
        self._next = time.monotonic()

    async def beat(self) -> None:
        """Write the line, if it is time to."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_S
        tally, keys = self._committer.tally, self._keys
        queued = await self._client.command("ZCARD", keys.queue)
        line = (
            f"{datetime.now().astimezone():%b-%d %H:%M:%S} j_complete={tally.complete} j_failed={tally.failed} "
            f"j_retried={tally.retried} j_ongoing={self._committer.held} queued={queued}"
        )
        await self._client.command("SET", keys.health, line, "PX", KEPT_MS)
