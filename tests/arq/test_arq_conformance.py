"""The arq backend keeps every promise of the contract, on a real server."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator

import msgspec
import pytest
import redis.asyncio

from queue_backends.arq import open_backend as open_arq
from queue_backends.conformance import BackendConformance, InjectRaw, OpenBackend, opener
from tests.servers import Server


class TestArqConformance(BackendConformance):
    """The whole suite."""

    @pytest.fixture
    async def open_backend(self, arq_url: str) -> AsyncIterator[OpenBackend]:
        """A fresh queue."""
        async with opener(arq_url, open_arq) as open_again:
            yield open_again

    @pytest.fixture
    def inject_raw(self, valkey_server: Server, arq_queue: str) -> InjectRaw:
        """A job as any program could write it: bytes that may or may not be text are put into JSON as they are."""

        async def inject(fields: dict[str, bytes]) -> None:
            job_id, enqueued_ms = uuid.uuid4().hex, time.time_ns() // 1_000_000
            kwargs = b",".join(msgspec.json.encode(name) + b":" + _quoted(value) for name, value in fields.items())
            job = b'{"t":null,"f":"run_task","a":[],"k":{%b},"et":%d}' % (kwargs, enqueued_ms)
            async with redis.asyncio.Redis.from_url(valkey_server.url()) as client:
                await client.set(f"arq:job:{job_id}", job, px=3_600_000)
                await client.zadd(arq_queue, {job_id: enqueued_ms})

        return inject


def _quoted(value: bytes) -> bytes:
    """A JSON string with these bytes in it, be they text or not."""
    return b'"' + b"".join(_ESCAPES.get(bytes([byte]), bytes([byte])) for byte in value) + b'"'


_ESCAPES = {b'"': b'\\"', b"\\": b"\\\\"} | {bytes([code]): b"\\u%04x" % code for code in range(32)}
