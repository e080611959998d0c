"""What a sink is, and how one is opened by its URL."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from queue_backends import UsageRecord
from worker.errors import BadSetting, WorkerError
from worker.settings.masking import masked_url


class SinkUnavailable(WorkerError):
    """The sink cannot be written to now; nothing was written, or all of it was."""


class UsageSink(Protocol):
    """Takes records, and remembers in the same step how far it has come: that is why none is lost and none doubled."""

    async def cursor(self) -> str:
        """Where it is in the ledger; empty at the beginning. Raises `SinkUnavailable`."""
        ...

    async def write(self, records: Sequence[UsageRecord], *, before: str, after: str) -> bool:
        """Write records and move the cursor, in one step, if it still is at `before`; says whether it was. Somebody
        else who streams to the same place has moved it otherwise.

        Raises `SinkUnavailable`; then the cursor tells whether it was done.
        """
        ...

    async def close(self) -> None:
        """Give up the connection."""
        ...


_SINKS: Mapping[str, str] = {
    "file": "worker.ledger.sinks.file",
    "postgresql": "worker.ledger.sinks.postgresql",
    "postgres": "worker.ledger.sinks.postgresql",
    "redis": "worker.ledger.sinks.redis",
    "rediss": "worker.ledger.sinks.redis",
    "unix": "worker.ledger.sinks.redis",
}


async def open_sink(url: str) -> UsageSink:
    """The sink at `file:///path/usage.jsonl`, `postgresql://…?table=usage`, or `redis://…?stream=usage`.

    Raises `BadSetting` for an address that is none, `SinkUnavailable` if it cannot be reached.
    """
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        raise BadSetting("the sink's address is no URL: is there a bracket in it that should be written %5B?") from None
    module = _SINKS.get(scheme)
    if module is None:
        raise BadSetting(
            f"{masked_url(url)!r} is no sink: use file:///path.jsonl, postgresql://…?table=NAME or redis://…?stream=NAME"
        )
    try:
        opener = importlib.import_module(module).open_sink
    except ImportError as error:
        raise BadSetting(
            f"{scheme}:// needs a package that is missing ({error.name}): pip install 'shoal[all]'"
        ) from error
    sink: UsageSink = await opener(url)
    return sink
