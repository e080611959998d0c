"""A client that takes a write for done once replicas have it, too: what a failover then promotes has not lost it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import redis.exceptions

from queue_backends.redis.client import RedisClient
from queue_backends.redis.locating import Locator
from queue_backends.redis.to_its_end import to_its_end

CONFIRMED_WITHIN_MS = 2000
_WRITES = frozenset({"EVALSHA", "EVAL", "XREADGROUP", "SET", "DEL", "ZADD", "XDEL"})


class ReplicatedClient(RedisClient):
    """Sends WAIT (https://redis.io/docs/latest/commands/wait/) behind each write, in the same round trip.

    A write that too few replicas confirm in time counts as one whose reply was lost: it may have been carried out, and
    whoever repeats it, as all writes here may be, repeats the question to the replicas with it.
    """

    def __init__(self, url: str, *, replicas: int, lease_s: float, locator: Locator) -> None:
        super().__init__(url, lease_s=lease_s, locator=locator)
        self._replicas = replicas

    async def _execute(self, *args: Any) -> Any:
        if args[0] not in _WRITES:
            return await super()._execute(*args)
        reply, confirmed = await self._execute_and_wait([args])
        self._check(confirmed)
        return reply

    async def _execute_all(self, commands: Sequence[Sequence[Any]], *, transaction: bool) -> list[Any]:
        if not any(command[0] in _WRITES for command in commands):
            return await super()._execute_all(commands, transaction=transaction)
        if transaction:  # inside of it, WAIT would not wait
            commands = [("MULTI",), *commands, ("EXEC",)]
        *replies, confirmed = await self._execute_and_wait(commands)
        if transaction:
            replies = replies[-1]
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        self._check(confirmed)
        return replies

    async def blocking(
        self, commands: Sequence[Sequence[Any]], *, timeout_s: float, unheard: Callable[[list[Any]], None]
    ) -> list[Any]:
        """As `RedisClient.blocking`: what only this server knows of is not heard yet."""
        return await to_its_end(self.pipeline(commands, timeout_s=timeout_s), unheard, self.unblock)

    async def _execute_and_wait(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        try:
            return await super()._execute_all([*commands, self._wait], transaction=False)
        except redis.exceptions.ResponseError as error:
            if "WAIT cannot be used with replica" not in str(error):
                raise
            # The write was redirected, or came in before: whether replicas have it, this server cannot say any more.
            raise redis.exceptions.ConnectionError(
                "the server has become a replica while a write was under way"
            ) from error

    @property
    def _wait(self) -> tuple[str, int, int]:
        return ("WAIT", self._replicas, CONFIRMED_WITHIN_MS)

    def _check(self, confirmed: int) -> None:
        if confirmed < self._replicas:
            raise redis.exceptions.ConnectionError(
                f"{confirmed} of the wanted {self._replicas} replicas have confirmed a write "
                f"within {CONFIRMED_WITHIN_MS} ms"
            )
