"""Where audit records go: stdout, a stream in Redis, a webhook. Source: kubeswarm's sinks."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TextIO

import msgspec

from providers import ProviderError
from providers.retry import retry_after_s
from providers.transport import Transport
from worker.audit.record import AuditRecord
from worker.log import mask_text

WEBHOOK_BATCH = 100
WEBHOOK_WAITS_S = (1.0, 5.0, 30.0)
WEBHOOK_LONGEST_WAIT_S = 60.0
_TIMEOUT_S = 10.0
_STREAM_MAXLEN = 100_000
_FAILURES_UNTIL_OPEN = 5
_OPEN_S = 30.0


class NotTaken(Exception):
    """The sink did not take records; they are lost."""


class Sink(Protocol):
    """Takes records."""

    @property
    def gathers_s(self) -> float:
        """So long records may be kept back, so that more go together."""
        ...

    async def write(self, records: Sequence[AuditRecord]) -> None:
        """Take them all. Raises `NotTaken`."""
        ...

    async def aclose(self) -> None:
        """Let go of what it holds."""
        ...


class StdoutSink:
    """A line of JSON each, beside the log's own lines."""

    gathers_s = 0.0

    def __init__(self, out: Callable[[], TextIO] = lambda: sys.stdout) -> None:
        self._out = out

    async def write(self, records: Sequence[AuditRecord]) -> None:
        """Write them."""
        lines = "".join(f"{msgspec.json.encode(record).decode()}\n" for record in records)
        try:
            out = self._out()
            out.write(lines)
            out.flush()
        except (OSError, ValueError) as error:  # closed, or a full disk
            raise NotTaken(str(error)) from error

    async def aclose(self) -> None:
        """Nothing is held."""


class RedisSink:
    """`kubeswarm:audit:<namespace>`, a stream that keeps about the newest 100,000."""

    gathers_s = 0.0

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        import redis.asyncio

        self._redis = redis.asyncio.Redis.from_url(url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S)
        self._clock = clock
        self._failures = 0
        self._closed_until = 0.0

    async def write(self, records: Sequence[AuditRecord]) -> None:
        """In one round trip. After five failures in a row nothing is tried for half a minute."""
        import redis.exceptions

        if self._failures >= _FAILURES_UNTIL_OPEN and self._clock() < self._closed_until:
            raise NotTaken("Redis has failed several times and is left alone for a moment")
        try:
            async with asyncio.timeout(_TIMEOUT_S), self._redis.pipeline(transaction=False) as commands:
                for record in records:
                    key = f"kubeswarm:audit:{record.namespace}"
                    commands.xadd(key, {"data": msgspec.json.encode(record)}, maxlen=_STREAM_MAXLEN, approximate=True)
                await commands.execute()
        except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
            self._failures += 1
            self._closed_until = self._clock() + _OPEN_S
            raise NotTaken(mask_text(str(error))) from error
        self._failures = 0

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


class WebhookSink:
    """Posts arrays of records. Refusals (4xx) are final; what fails otherwise is tried three times."""

    gathers_s = 5.0

    def __init__(self, url: str, http: Transport, waits_s: Sequence[float] = WEBHOOK_WAITS_S) -> None:
        """`http` becomes the sink's to close."""
        self._url = url
        self._http = http
        self._waits_s = waits_s

    async def write(self, records: Sequence[AuditRecord]) -> None:
        """Post them, at most 100 at a time."""
        for start in range(0, len(records), WEBHOOK_BATCH):
            await self._post(msgspec.json.encode(records[start : start + WEBHOOK_BATCH]))

    async def _post(self, body: bytes) -> None:
        headers = {"content-type": "application/json"}
        reason = ""
        for attempt, wait_s in enumerate(self._waits_s, start=1):
            asked_s = None
            try:
                answer = await self._http.request(
                    "POST", self._url, headers=headers, content=body, timeout_s=_TIMEOUT_S
                )
            except (ProviderError, OSError) as error:
                reason = mask_text(str(error).replace(self._url, "the address"))
            else:
                if 200 <= answer.status < 300:
                    return
                reason = f"the receiver answered {answer.status}"
                if 400 <= answer.status < 500 and answer.status != 429:
                    raise NotTaken(reason)
                asked_s = retry_after_s(answer.headers, time.time())
            if attempt < len(self._waits_s):
                await asyncio.sleep(wait_s if asked_s is None else min(asked_s, WEBHOOK_LONGEST_WAIT_S))
        raise NotTaken(reason)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()
