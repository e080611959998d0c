"""`redis+sentinel://` and `rediss+sentinel://`: the Redis backend on whichever server is the master.

Every connection is made to the address that the sentinels tell at that moment, and used only if the server there says
itself that it is a master. A master that was demoted refuses writes, and one that hangs does not answer: both make all
connections new. Beside that a sentinel announces a failover, so that nobody has to find out.

Sources: https://redis.io/docs/latest/develop/reference/sentinel-clients/ and the same page of Valkey.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import redis.exceptions
import structlog
from redis.asyncio.connection import Connection

from queue_backends.errors import BackendUnavailable
from queue_backends.interfaces import Backend, BackendOptions
from queue_backends.redis import RedisBackend
from queue_backends.redis.client import RedisClient
from queue_backends.redis.locating import Address
from queue_backends.redis.replicated import ReplicatedClient
from queue_backends.redis.sentinel_locator import SentinelLocator, reply
from queue_backends.redis.sentinel_url import SentinelUrl, parse

__all__ = ["SentinelBackend", "open_backend"]

CHANNEL = "+switch-master"
LOOK_EVERY_S = 10.0
"""Without news for so long, the watch asks: the sentinel may be gone without a word, and news may get lost."""
LONGEST_DELAY_S = 2.0

log = structlog.get_logger(__name__)


class MasterWatch:
    """Hears from the sentinels that there is another master, and says so: what still waits for the old one need not.

    It listens to all of them, because one may be gone, or cut off from the others and told nothing. What counts is that
    a sentinel changes its mind: one that is behind the others changes nothing.
    """

    def __init__(self, locator: SentinelLocator, moved: Callable[[], None]) -> None:
        self._locator = locator
        self._moved = moved
        self._master: Address | None = None
        """The last one that a sentinel has changed to."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Watch until `close`."""
        self._task = asyncio.create_task(self._run(), name="watch of the master")

    async def close(self) -> None:
        """End the watch."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as listeners:
            for number in self._locator.by_trust():
                listeners.create_task(self._follow(number), name="watch of a sentinel")

    async def _follow(self, number: int) -> None:
        said: Address | None = None
        delay_s = 0.1
        while True:
            with contextlib.suppress(redis.exceptions.RedisError, OSError):
                async with self._locator.sentinel(number) as connection:
                    await reply(connection, "SUBSCRIBE", CHANNEL)
                    delay_s = 0.1
                    async for address in self._answers(number, connection):
                        if said is not None and address != said:
                            self._note(number, said, address)
                        said = address
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    async def _answers(self, number: int, connection: Connection) -> AsyncIterator[Address]:
        """Where the master is by this sentinel's word, asked for now and then and whenever there is news, until the
        connection, or the sentinel, is of no more use."""
        while True:
            news = asyncio.create_task(connection.read_response(), name="news of a sentinel")
            try:
                while not news.done():
                    address = await self._locator.ask_one(number)
                    if address is None:
                        raise redis.exceptions.ConnectionError("this sentinel watches no such master any more")
                    yield address
                    await asyncio.wait([news], timeout=LOOK_EVERY_S)
            finally:
                news.cancel()
                await asyncio.wait([news])
            news.result()

    def _note(self, number: int, former: Address, address: Address) -> None:
        self._locator.trust(number)
        if address != self._master:
            self._master = address
            log.info("another server is the master now", former=_shown(former), now=_shown(address))
            self._moved()


def _shown(address: Address) -> str:
    return f"{address.host}:{address.port}"


class SentinelBackend(RedisBackend):
    """A Redis backend whose server may be replaced by one of its replicas at any time."""

    def __init__(self, url: str, options: BackendOptions) -> None:
        parsed = parse(url)
        self.locator = SentinelLocator(parsed)
        self.client = _client(parsed, self.locator, options.lease_s)
        super().__init__(self.client, options)
        self.url = url
        self._watch = MasterWatch(self.locator, self.client.moved)

    async def start(self) -> None:
        """Find the master, check it, and watch for another. A sentinel may be wrong: then the next one is asked."""
        for _ in self.locator.url.sentinels:
            try:
                await super().start()
            except BackendUnavailable as error:
                failure = error
                if not self.locator.has_found:
                    break
            else:
                self._watch.start()
                return
        raise failure

    async def close(self) -> None:
        """End the watch, then as every Redis backend."""
        await self._watch.close()
        await super().close()


def _client(url: SentinelUrl, locator: SentinelLocator, lease_s: float) -> RedisClient:
    if not url.wait_replicas:
        return RedisClient(url.master_url, lease_s=lease_s, locator=locator)
    return ReplicatedClient(url.master_url, replicas=url.wait_replicas, lease_s=lease_s, locator=locator)


async def open_backend(url: str, options: BackendOptions) -> Backend:
    """Connect to the master that the sentinels of `url` name.

    Raises `BackendUnavailable` if no sentinel answers or the master is away, and `BackendMisconfigured` if the
    sentinels know no master of that name, or let nobody in.
    """
    backend = SentinelBackend(url, options)
    try:
        await backend.start()
    except BaseException:
        await backend.close()
        raise
    return backend
