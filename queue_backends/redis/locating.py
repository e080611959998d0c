"""Where the server is: for deployments in which that changes, asked anew for each connection."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple, Protocol, Self

import redis.asyncio.connection
import redis.exceptions

GREETING_S = 3.0
"""So long may a server that accepts a connection take to answer. A frozen one still accepts: its system does."""


class Address(NamedTuple):
    """Of one server."""

    host: str
    port: int


class Locator(Protocol):
    """Knows where the master is that a client shall talk to.

    A client asks whenever it makes a connection, and lets go of those it has once they turn out to lead to the wrong
    server. What `locate` raises of the driver's errors, or as `OSError`, counts as a server that cannot be reached; a
    `QueueError` goes to the caller as it is.
    """

    async def locate(self) -> Address:
        """The master's address at this moment, found within a few seconds."""
        ...

    async def vet(self, connection: LocatedConnection) -> None:
        """Raise an error of the driver's unless the server at the other end is the one that was looked for.

        Called once for each connection, after the driver's own greeting.
        """
        ...

    def doubt(self) -> None:
        """The last address led nowhere, or to a server that is no master: remember it no longer. Does not wait."""
        ...

    def twin(self) -> Self:
        """Another one with the same purpose, for another event loop."""
        ...


class LocatedConnection(redis.asyncio.connection.Connection):
    """A connection whose host and port are asked for each time it is made."""

    def __init__(self, *, locator: Locator, **options: Any) -> None:
        super().__init__(redis_connect_func=self._greet, **options)
        self._locator = locator

    async def connect(self) -> None:
        """Connect, if that is not done yet."""
        if self.is_connected:
            return
        self.host, self.port = await self._address()
        connect: Any = super().connect
        try:
            await connect()
        except redis.exceptions.AuthenticationError:  # it is there, and lets nobody in
            raise
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError):
            self._locator.doubt()
            await self.disconnect(nowait=True)
            raise

    async def _greet(self, connection: Any) -> None:
        """In place of the driver's own greeting, which it calls."""
        try:
            async with asyncio.timeout(GREETING_S):
                await self.on_connect()
                await self._locator.vet(self)
        except TimeoutError as error:
            # These words tell `may_have_arrived` that nothing was sent.
            raise redis.exceptions.TimeoutError(f"no answer while connecting to {self.host}:{self.port}") from error

    async def _address(self) -> Address:
        try:
            return await self._locator.locate()
        except redis.exceptions.AuthenticationError:
            raise
        except (redis.exceptions.RedisError, OSError) as error:
            reason = str(error) or type(error).__name__
            # These words tell `may_have_arrived` that nothing was sent.
            raise redis.exceptions.ConnectionError(f"before connecting to it, it must be found: {reason}") from error


class LocatedSSLConnection(LocatedConnection, redis.asyncio.connection.SSLConnection):
    """The same over TLS."""
