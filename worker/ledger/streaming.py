"""Streams the usage ledger to a sink, on and on: every record once, whatever is restarted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from queue_backends import BackendUnavailable, StateStore
from worker.ledger.reading import PAGE, read_record
from worker.ledger.sinks.sink import SinkUnavailable, UsageSink
from worker.usage import USAGE_LOG

EVERY_S = 1.0
_PAUSE_S = 0.5
_MOST_PAUSE_S = 30.0

_log = structlog.get_logger(__name__)

OpenSink = Callable[[], Awaitable[UsageSink]]


class UsageStream:
    """Carries records from the ledger of a fleet to one sink. `sent` counts what this process has carried.

    The sink knows how far it has come, and moves on in one step with what it writes: so this may be killed at any
    moment, run twice, or begin anew elsewhere, and no record is lost or written twice. A sink or a store that is away
    is waited for.
    """

    def __init__(self, state: StateStore, open_sink: OpenSink, *, every_s: float = EVERY_S) -> None:
        self._state = state
        self._open_sink = open_sink
        self._every_s = every_s
        self.sent = 0

    async def run(self, *, until_caught_up: bool = False) -> None:
        """Stream until cancelled; or until everything there is has been carried over. Raises `BadSetting`."""
        pause_s = _PAUSE_S
        while True:
            try:
                sink = await self._open_sink()
                try:
                    await self._carry(sink, until_caught_up=until_caught_up)
                finally:
                    await sink.close()
            except (SinkUnavailable, BackendUnavailable) as error:
                _log.warning("usage cannot be streamed now, trying again", error=str(error), in_s=round(pause_s, 1))
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter is no secret
                pause_s = min(pause_s * 2, _MOST_PAUSE_S)
            else:
                return

    async def _carry(self, sink: UsageSink, *, until_caught_up: bool) -> None:
        cursor = await sink.cursor()
        while True:
            page = await self._state.read_on(USAGE_LOG, cursor, limit=PAGE)
            if page.cursor == cursor:
                if until_caught_up:
                    return
                await asyncio.sleep(self._every_s)  # logs cannot be watched
                continue
            records = [record for entry in page.entries if (record := read_record(entry)) is not None]
            if await sink.write(records, before=cursor, after=page.cursor):
                cursor = page.cursor
                self.sent += len(records)
            else:
                cursor = await sink.cursor()  # another process streams to the same place
