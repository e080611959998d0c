"""Lists of the keys of small families of state, so that reading such a family costs nothing for all other keys.

Redis has no order of keys: to find those with a prefix it looks at every key there is. So the families that processes
read whole when they start keep a list of their keys: a hash with a field for each, written together with the key. Its
field without a name says that the list is complete. A list without it is new, or was evicted or deleted, mark and all:
whoever reads it then looks at all keys once, and completes it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence

import structlog

from queue_backends.errors import QueueError
from queue_backends.redis.client import RedisClient
from queue_backends.redis.entries import pairs
from queue_backends.redis.keys import Keys, family_of

PAGE = 500
_IS_COMPLETE = b""

log = structlog.get_logger(__name__)


class Listings:
    """The lists of one queue's state."""

    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def added(self, key: str) -> list[tuple[str, ...]]:
        """The command that belongs to a write of the key; none, if its family has no list."""
        listing = self._keys.listing(key)
        return [("HSET", listing, key, "")] if listing else []

    def removed(self, key: str) -> list[tuple[str, ...]]:
        """The command that belongs to the key's deletion; none, if its family has no list."""
        listing = self._keys.listing(key)
        return [("HDEL", listing, key)] if listing else []

    async def pages(self, prefix: str) -> AsyncIterator[list[str]]:
        """Keys that begin with `prefix`, of a family that has a list; some may have expired. Each once."""
        names = [name for name in await self._names(prefix) if name.startswith(prefix)]
        for start in range(0, len(names), PAGE):
            yield names[start : start + PAGE]

    async def forget_expired(self, keys: Sequence[str]) -> None:
        """Take those off their list that do not exist any more. All are of one family."""
        names = [self._keys.kv(key) for key in keys]
        with contextlib.suppress(QueueError):  # as in `_tidy`
            await self._client.script("forget_expired", [self._keys.listing(keys[0]), *names], list(keys))

    async def _names(self, prefix: str) -> list[str]:
        listing = self._keys.listing(prefix)
        listed = dict(pairs(await self._client.command("HGETALL", listing)))
        is_complete = listed.pop(_IS_COMPLETE, None) is not None
        names = {name.decode() for name in listed}
        if not is_complete:
            names |= await self._completed(listing, family_of(prefix))
        return sorted(names)

    async def _completed(self, listing: str, family: str) -> set[str]:
        """Look at all keys; what is written meanwhile lists itself."""
        found: set[str] = set()
        async for page in scanned(self._client, self._keys, family):
            found.update(name for name in page if family_of(name) == family)
        names = sorted(found)
        pages = [names[start : start + PAGE] for start in range(0, len(names), PAGE)]
        commands = [("HSET", listing, *itertools.chain.from_iterable((name, "") for name in page)) for page in pages]
        await self._tidy([*commands, ("HSET", listing, _IS_COMPLETE.decode(), "complete")])
        return found

    async def _tidy(self, commands: Sequence[Sequence[str]]) -> None:
        """All or none, lest a list be called complete whose names were evicted just before. A server that has no room,
        or lets us only read, can be read all the same."""
        try:
            await self._client.pipeline(commands, transaction=True)
        except QueueError as error:
            log.debug("the list of a family of keys could not be written", error=str(error))


async def scanned(client: RedisClient, keys: Keys, prefix: str) -> AsyncIterator[list[str]]:
    """State keys that begin with `prefix`, found by a look at all keys of the database. SCAN may report one twice."""
    pattern = _escaped(keys.kv(prefix)) + "*"
    cursor = 0
    while True:
        cursor, names = await client.command("SCAN", cursor, "MATCH", pattern, "COUNT", PAGE)
        yield [keys.kv_name(name.decode()) for name in names]
        if int(cursor) == 0:
            return


def _escaped(text: str) -> str:
    """A name as a SCAN pattern that means just itself."""
    return "".join(f"\\{char}" if char in "*?[]\\" else char for char in text)
