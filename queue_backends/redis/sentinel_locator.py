"""Finding the master: the sentinels are asked one after the other, each a little later than the one before."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis.exceptions
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from queue_backends.errors import BackendMisconfigured, QueueError
from queue_backends.redis.locating import Address, LocatedConnection
from queue_backends.redis.sentinel_url import SentinelUrl

ANSWER_S = 2.0
"""So long may one sentinel take for an answer."""
NEXT_AFTER_S = 0.3
"""After this long without an answer the next one is asked as well."""


class SentinelLocator:
    """`Locator` of a master that sentinels watch. The word of one of them is enough; the server's own must agree."""

    def __init__(self, url: SentinelUrl) -> None:
        self.url = url
        self._outcome: Address | Exception | None = None
        """Of the last inquiry; None if it is in doubt."""
        self._order = list(range(len(url.sentinels)))
        """Of the sentinels, the one that gave the last good answer first."""
        self.has_found = False
        """Whether any sentinel has ever named a master."""
        self._inquiries = 0
        self._asking = asyncio.Lock()

    async def locate(self) -> Address:
        """The master's address. Many who ask at once share one inquiry.

        Raises `BackendMisconfigured` if it was never found and the sentinels say that it never will be.
        """
        seen = self._inquiries
        async with self._asking:
            if self._inquiries == seen or self._outcome is None:  # else somebody asked while we waited for our turn
                try:
                    self._outcome = await self._ask_in_turn()
                    self.has_found = True
                except (redis.exceptions.RedisError, OSError) as error:
                    self._outcome = error
                finally:
                    self._inquiries += 1
            if isinstance(self._outcome, Exception):
                raise redis.exceptions.ConnectionError(str(self._outcome))
            return self._outcome

    async def vet(self, connection: LocatedConnection) -> None:
        """A server that was demoted, or that sentinels have just got wrong, is none to write to."""
        try:
            facts = await reply(connection, "HELLO")
        except redis.exceptions.ResponseError:  # an ACL may forbid it: READONLY then tells, at the first write
            return
        role = dict(zip(facts[::2], facts[1::2], strict=True)).get(b"role", b"master")
        if role != b"master":
            raise redis.exceptions.ConnectionError(
                f"connecting to {connection.host}:{connection.port}: it is a {role.decode()}, no master"
            )

    def doubt(self) -> None:
        """The next connection asks again, and another sentinel first: this one may be cut off from the others."""
        if isinstance(self._outcome, Address):
            self._order.append(self._order.pop(0))
        self._outcome = None

    def twin(self) -> SentinelLocator:
        """For another event loop, with what is known already."""
        other = SentinelLocator(self.url)
        other._order, other.has_found = list(self._order), self.has_found
        return other

    @asynccontextmanager
    async def sentinel(self, number: int) -> AsyncIterator[Connection]:
        """A connection to one of the sentinels."""
        host, port = self.url.sentinels[number]
        kind = SSLConnection if self.url.tls_to_sentinels else Connection
        connection = kind(
            host=host,
            port=port,
            protocol=2,
            socket_timeout=None,  # with one, the driver uses `asyncio.wait_for`, which loses cancellations before 3.12
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),
            client_name="shoal",
            **self.url.connection,
        )
        try:
            async with asyncio.timeout(ANSWER_S):
                await connection.connect()
            yield connection
        finally:
            await connection.disconnect(nowait=True)  # without a wait, so that no cancellation can come between

    async def ask_one(self, number: int) -> Address | None:
        """What this sentinel says; None if it knows no master of that name."""
        async with self.sentinel(number) as connection:
            found = await reply(connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.url.master)
        return Address(found[0].decode(), int(found[1])) if found else None

    def by_trust(self) -> list[int]:
        """Numbers of the sentinels, the one that gave the last good answer first."""
        return list(self._order)

    def trust(self, number: int) -> None:
        """Ask this sentinel first from now on."""
        self._order.remove(number)
        self._order.insert(0, number)

    async def _ask_in_turn(self) -> Address:
        """The first good answer. A sentinel that is silent delays it a little, one that refuses does not at all."""
        waiting = self.by_trust()
        asked: dict[asyncio.Task[Address | None], int] = {}
        answers: dict[int, Exception | None] = {}
        try:
            while waiting or asked:
                if waiting:
                    number = waiting.pop(0)
                    asked[asyncio.create_task(self.ask_one(number), name="ask a sentinel")] = number
                done, _ = await asyncio.wait(
                    asked, timeout=NEXT_AFTER_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    number, error = asked.pop(task), task.exception()
                    if error is not None and not isinstance(error, redis.exceptions.RedisError | OSError):
                        raise error
                    address = None if error is not None else task.result()
                    if address is not None:
                        self.trust(number)
                        return address
                    answers[number] = error if isinstance(error, Exception) else None
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        raise await self._why_not(answers)

    async def _why_not(self, answers: dict[int, Exception | None]) -> Exception:
        """All have been asked, and none knows: what the caller is told, who may be somebody setting this up."""
        ignorant = [number for number, error in answers.items() if error is None]
        refusals = [error for error in answers.values() if isinstance(error, _REFUSALS)]
        if ignorant:
            names = ", ".join(await self._names(ignorant[0])) or "none"
            text = f"the sentinels {self.url.hosts} know no master {self.url.master!r}; they watch: {names}"
        elif refusals:
            text = (
                f"the sentinels {self.url.hosts} let nobody in: {refusals[0]}: "
                "set sentinel_password (and sentinel_username) in the URL"
            )
        else:
            reasons = "; ".join(f"{_named(error)}" for error in answers.values())
            return redis.exceptions.ConnectionError(f"none of the sentinels {self.url.hosts} answers: {reasons}")
        if self.has_found:  # it was there before: somebody is at work on the sentinels
            return redis.exceptions.ConnectionError(text)
        return BackendMisconfigured(text)

    async def _names(self, number: int) -> list[str]:
        """The masters that a sentinel knows; none if it does not tell."""
        found: list[Any] = []
        with contextlib.suppress(redis.exceptions.RedisError, OSError, QueueError):
            async with self.sentinel(number) as connection:
                found = await reply(connection, "SENTINEL", "MASTERS")
        return sorted(dict(zip(facts[::2], facts[1::2], strict=True))[b"name"].decode() for facts in found)


async def reply(connection: Connection, *command: str) -> Any:
    """What a sentinel answers, in time."""
    async with asyncio.timeout(ANSWER_S):
        await connection.send_command(*command)
        return await connection.read_response()


_REFUSALS = (
    redis.exceptions.AuthenticationError,
    redis.exceptions.AuthorizationError,
    redis.exceptions.NoPermissionError,
)


def _named(error: Exception | None) -> str:
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
