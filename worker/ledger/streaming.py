"""Streams the usage ledger to a sink, on and on: every record once, whatever is restarted."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import structlog

from queue_backends import BackendUnavailable, StateStore
from worker.ledger.place import Place, ledger_id, place_in
from worker.ledger.reading import PAGE, read_record
from worker.ledger.sinks.sink import SinkUnavailable, UsageSink
from worker.usage import KEEP_S, USAGE_LOG

EVERY_S = 1.0
_PAUSE_S = 0.5
_MOST_PAUSE_S = 30.0

_log = structlog.get_logger(__name__)

OpenSink = Callable[[], Awaitable[UsageSink]]


class UsageStream:
    """Carries records from the ledger of a fleet to one sink. `sent` counts what this process has carried.

    The sink knows how far it has come, and moves on in one step with what it writes: so this may be killed at any
    moment, run twice, or begin anew elsewhere, and no record is lost or written twice. A sink or a store that is away
    is waited for. Records are kept for `kept_s` in the ledger; a stream that was away for longer says so.
    """

    def __init__(
        self, state: StateStore, open_sink: OpenSink, *, every_s: float = EVERY_S, kept_s: float = KEEP_S
    ) -> None:
        self._state = state
        self._open_sink = open_sink
        self._every_s = every_s
        self._kept_s = kept_s
        self._pause_s = _PAUSE_S
        self.sent = 0

    async def run(self, *, until_caught_up: bool = False) -> None:
        """Stream until cancelled; or until everything there is has been carried over. Raises `BadSetting`."""
        self._pause_s = _PAUSE_S
        while True:
            try:
                sink = await self._open_sink()
                try:
                    await self._carry(sink, until_caught_up=until_caught_up)
                finally:
                    await sink.close()
            except (SinkUnavailable, BackendUnavailable) as error:
                _log.warning(
                    "usage cannot be streamed now, trying again", error=str(error), in_s=round(self._pause_s, 1)
                )
                await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter is no secret
                self._pause_s = min(self._pause_s * 2, _MOST_PAUSE_S)
            else:
                return

    async def _carry(self, sink: UsageSink, *, until_caught_up: bool) -> None:
        ledger = await ledger_id(self._state)
        known = await sink.cursor()
        place = place_in(known, ledger)
        self._say_if_away_too_long(place)
        while True:
            page = await self._state.read_on(USAGE_LOG, place.cursor, limit=PAGE)
            if page.cursor == place.cursor:
                if until_caught_up:
                    return
                await asyncio.sleep(self._every_s)  # logs cannot be watched
                continue
            records = [record for entry in page.entries if (record := read_record(entry)) is not None]
            newest = max((entry.at for entry in page.entries), default=place.at)
            place = Place(ledger=ledger, cursor=page.cursor, at=max(newest, place.at))
            if await sink.write(records, before=known, after=str(place)):
                known = str(place)
                self.sent += len(records)
                self._pause_s = _PAUSE_S
            else:
                known = await sink.cursor()  # another process streams to the same place
                place = place_in(known, ledger)

    def _say_if_away_too_long(self, place: Place) -> None:
        away_s = time.time() - place.at
        if place.at and away_s > self._kept_s:
            _log.warning(
                "the last record was carried over so long ago that later ones may have gone from the ledger unread",
                days=round(away_s / 86_400, 1),
                kept_days=round(self._kept_s / 86_400, 1),
            )
