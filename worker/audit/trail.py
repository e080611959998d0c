"""Takes acts at once and hands them to the sink a little later: no task ever waits for its audit log."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import structlog

from worker.audit.record import AuditRecord
from worker.audit.sinks import WEBHOOK_BATCH, NotTaken, Sink

MOST_WAITING: Final = 1024
MOST_AT_ONCE: Final = 64
LAST_WORDS_S: Final = 5.0
_SAY_EVERY = 100

log = structlog.get_logger(__name__)


class AuditTrail:
    """At most 1024 records wait; then the oldest are dropped, and the log says so. Use it with `kept`."""

    def __init__(self, sink: Sink, *, exclude: Sequence[str] = ()) -> None:
        self._sink = sink
        self._exclude = frozenset(exclude)
        self._waiting: deque[AuditRecord] = deque()
        self._news = asyncio.Event()
        self._is_ending = asyncio.Event()
        self.dropped = 0
        """Records that nobody will read."""

    def write_down(self, record: AuditRecord) -> None:
        """Take an act. Never waits, never fails."""
        if record.action in self._exclude:
            return
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self._drop(1, "more are written down than the sink takes")
        self._waiting.append(record)
        self._news.set()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """While this is entered, records are handed on; at its end, those that are left, within five seconds."""
        handing_on = asyncio.create_task(self._hand_on(), name="audit log")
        try:
            yield
        finally:
            self._is_ending.set()
            self._news.set()
            await asyncio.wait([handing_on], timeout=LAST_WORDS_S)
            handing_on.cancel()
            await asyncio.wait([handing_on])
            if self._waiting:
                self._drop(len(self._waiting), "the process ends")
            await self._sink.aclose()

    async def _hand_on(self) -> None:
        while self._waiting or not self._is_ending.is_set():
            if not self._waiting:
                self._news.clear()
                await self._news.wait()
                continue
            if len(self._waiting) < WEBHOOK_BATCH and self._sink.gathers_s:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._sink.gathers_s):
                        await self._is_ending.wait()
            most = WEBHOOK_BATCH if self._sink.gathers_s else MOST_AT_ONCE
            batch = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            try:
                await self._sink.write(batch)
            except NotTaken as error:
                self._drop(len(batch), str(error))
            except Exception as error:  # a record that cannot be written must not be the last one
                log.debug("an audit sink has failed", exc_info=error)
                self._drop(len(batch), f"{type(error).__name__}, which the debug log shows")
            except asyncio.CancelledError:
                self._drop(len(batch), "the process ends")
                raise

    def _drop(self, count: int, reason: str) -> None:
        before, self.dropped = self.dropped, self.dropped + count
        if before == 0 or before // _SAY_EVERY != self.dropped // _SAY_EVERY:
            log.warning("audit records were dropped", dropped=self.dropped, reason=reason)
