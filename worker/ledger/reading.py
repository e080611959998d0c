"""Reads usage records one after the other, as many as there are, a page at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from fnmatch import fnmatchcase

import msgspec
import structlog
from msgspec import Struct

from queue_backends import LogEntry, StateStore, UsageRecord
from worker.usage import USAGE_LOG

PAGE = 1000

_log = structlog.get_logger(__name__)
_decoder = msgspec.json.Decoder(UsageRecord)


class Span(Struct, frozen=True, kw_only=True):
    """Which records are meant, by the start of the call and by their texts."""

    since: float | None = None
    """Unix seconds; from this moment on."""
    until: float | None = None
    """Unix seconds; before this moment."""
    where: Mapping[str, str] = {}
    """Field -> pattern (`model`: `gpt-*`)."""

    @property
    def is_everything(self) -> bool:
        """Whether no record is left out."""
        return self.since is None and self.until is None and not self.where

    def has(self, record: UsageRecord) -> bool:
        """Whether a record is one of them."""
        if self.since is not None and record.started_at < self.since:
            return False
        if self.until is not None and record.started_at >= self.until:
            return False
        return all(fnmatchcase(str(getattr(record, field)), pattern) for field, pattern in self.where.items())


EVERYTHING = Span()


async def usage_records(state: StateStore, span: Span = EVERYTHING) -> AsyncIterator[UsageRecord]:
    """All kept records of a span, in the order they were written. Raises `BackendUnavailable`."""
    cursor = ""
    while True:
        page = await state.read_on(USAGE_LOG, cursor, limit=PAGE)
        if not page.entries and page.cursor == cursor:
            return
        cursor = page.cursor
        for entry in page.entries:
            record = read_record(entry)
            if record is not None and span.has(record):
                yield record


def read_record(entry: LogEntry) -> UsageRecord | None:
    """The record that an entry holds; one that cannot be read is left out and named in the log."""
    try:
        return _decoder.decode(entry.value)
    except msgspec.MsgspecError as error:
        _log.warning("usage record cannot be read and is left out", id=entry.id, error=str(error))
        return None
