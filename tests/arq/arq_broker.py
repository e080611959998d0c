"""An arq queue for the fault harness: its server, an engine with arq's own client, and a look at the keys."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import redis.asyncio
import redis.exceptions
from arq import ArqRedis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from queue_backends.arq import serializer
from tests.faults.brokers.broker import Foreigner, Inside
from tests.faults.brokers.redis import ArkOperator, ValkeyBroker
from tests.faults.brokers.redis_keys import LISTS, RedisKeys
from tests.faults.evidence import Told


class ArqBroker(ValkeyBroker):
    """The Valkey that comes as a Python package, with arq's jobs in it."""

    name = "arq"
    setting = "one Valkey with `appendonly yes` and `appendfsync always`, with arq's jobs in it"
    structure = LISTS | {"", ":high", ":low", ":running", ":front", ":results-expiry", "-dead", ":ids", ":paused"}

    def url(self, queue: str, port: int = 0) -> str:
        """As any client writes it."""
        return f"arq+redis://127.0.0.1:{port or self.port}/0?queue={queue}"

    def foreigner(self, queue: str) -> AbstractAsyncContextManager[Foreigner]:
        """An engine with arq's own client."""
        return engine(self.port, queue)

    def look_inside(self, queue: str, told: Told) -> Inside:
        """All keys."""
        with self._client() as client:
            return ArqKeysLeft(client, queue).inside(told)


class ArqKeysLeft(RedisKeys):
    """A queue's keys and arq's."""

    def _json_hash(self, key: str) -> dict[str, Any]:
        if key != f"{self._queue}-results":
            return super()._json_hash(key)
        prefix, found = "arq:result:", {}
        for name in self._named(prefix):
            data: Any = self._client.get(name)
            stored = msgspec.json.decode(data)
            # A success has its output where arq's clients look for it.
            found[name.removeprefix(prefix)] = {**stored["shoal"], **({"result": stored["r"]} if stored["s"] else {})}
        return found

    def _left_over(self) -> dict[str, int]:
        lanes = (f"{self._queue}:high", self._queue, f"{self._queue}:low")
        found: dict[str, Any] = {f"jobs in {lane}": self._client.zcard(lane) for lane in lanes}
        found["tasks handed back"] = self._client.zcard(f"{self._queue}:front")
        found["running tasks"] = self._client.zcard(f"{self._queue}:running")
        found["jobs to be aborted"] = self._client.zcard("arq:abort")
        for prefix in ("arq:job:", "arq:in-progress:", "arq:retry:", f"{self._queue}:run:"):
            found[f"keys {prefix}*"] = len(self._named(prefix))
        ends: Any = self._client.zcard(f"{self._queue}:results-expiry")
        found["results without an end time"] = abs(len(self._named("arq:result:")) - ends)
        return found


class ArqEngine(ArkOperator):
    """Enqueues with arq's own client, and listens to the channels of results."""

    def __init__(self, client: ArqRedis, queue: str) -> None:
        super().__init__(client, queue)
        self._pool = client

    async def add_entry(self, fields: Mapping[bytes, bytes]) -> str | None:
        """`enqueue_job`; where arguments are no text, what a broken program would write."""
        with contextlib.suppress(redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            try:
                arguments = {name.decode(): value.decode() for name, value in fields.items()}
            except UnicodeDecodeError:
                return await self._write(b'{"t":null,"f":"run_task","a":[],"k":{"prompt":"\xff\xfe"},"et":1}')
            job = await self._pool.enqueue_job("run_task", **arguments)  # type: ignore[arg-type]  # arguments alone
            return job.job_id if job is not None else None
        return None

    async def _write(self, data: bytes) -> str:
        job_id = uuid.uuid4().hex
        await self._pool.set(f"arq:job:{job_id}", data, px=3_600_000)
        await self._pool.zadd(self._queue, {job_id: time.time_ns() // 1_000_000})
        return job_id


@contextlib.asynccontextmanager
async def engine(port: int, queue: str) -> AsyncIterator[ArqEngine]:
    """Connect one."""
    # Without the driver's own retries: a command that is repeated after a lost reply may be a second task.
    client = ArqRedis(port=port, socket_timeout=5, retry=Retry(NoBackoff(), 0), default_queue_name=queue)
    client.job_serializer = serializer
    try:
        yield ArqEngine(client, queue)
    finally:
        await client.aclose()
