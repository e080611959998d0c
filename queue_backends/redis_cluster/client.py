"""One slot's master, as the rest of the package uses a server: redirections are followed on the way."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import redis.exceptions

from queue_backends.redis.client import RedisClient
from queue_backends.redis.locating import Address
from queue_backends.redis.redirecting import Redirection, redirection
from queue_backends.redis.replicated import ReplicatedClient
from queue_backends.redis.script_text import script_text
from queue_backends.redis.to_its_end import to_its_end
from queue_backends.redis_cluster.direct import ask
from queue_backends.redis_cluster.slot_map import SlotLocator, SlotMap

MOST_REDIRECTIONS = 5


@functools.cache
def _sharded(name: str) -> tuple[str, str]:
    """A script that announces to the slot's own servers: PUBLISH goes to every server of a cluster."""
    text = script_text(name)[0].replace("'PUBLISH'", "'SPUBLISH'")
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class ClusterClient(RedisClient):
    """Talks to the master of one slot, whichever server that is.

    A redirected command was not carried out, so that it is sent again at once, wherever the redirection points. What
    is refused because slots are under way (TRYAGAIN), or have no master (CLUSTERDOWN), is `BackendUnavailable`.
    """

    def __init__(self, server_url: str, stream: str, locator: SlotLocator, *, lease_s: float = 30.0) -> None:
        RedisClient.__init__(self, server_url, lease_s=lease_s, locator=locator)
        self.stream = stream
        self._slots: SlotMap = locator.slots
        self._slot = locator.slot
        self._located = locator
        self._server_url = server_url

    def twin(self, slots: SlotMap | None = None) -> ClusterClient:
        """As `RedisClient.twin`; several twins for one event loop share a map."""
        locator = SlotLocator(slots or self._slots.twin(), self._slot)
        other = ClusterClient(self._server_url, self.stream, locator)
        self.share_with(other)
        return other

    @property
    def connected_to(self) -> Address | None:
        """The server that the newest connection leads to; None before the first one."""
        return self._located.last

    def _script(self, name: str) -> tuple[str, str]:
        return _sharded(name) if self.sharded else super()._script(name)

    async def _execute(self, *args: Any) -> Any:
        for _ in range(MOST_REDIRECTIONS):
            try:
                return await self.redis.execute_command(*args)
            except redis.exceptions.ResponseError as error:
                elsewhere = redirection(error)
                if elsewhere is None:
                    raise
                if not elsewhere.is_moved:
                    return await self._ask(elsewhere, args)
                self._follow(elsewhere)
        raise _undecided(self._slot)

    async def blocking(
        self, commands: Sequence[Sequence[Any]], *, timeout_s: float, unheard: Callable[[list[Any]], None]
    ) -> list[Any]:
        """As `RedisClient.blocking`; a server that is asked here cannot be told to end it, so its time passes."""
        return await to_its_end(self.pipeline(commands, timeout_s=timeout_s), unheard)

    async def _execute_all(self, commands: Sequence[Sequence[Any]], *, transaction: bool) -> list[Any]:
        if self.sharded:
            commands = [("SPUBLISH", *command[1:]) if command[0] == "PUBLISH" else command for command in commands]
        if transaction:
            return await self._transaction(commands)
        replies = await self._replies(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def _transaction(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        for _ in range(MOST_REDIRECTIONS):
            try:
                return await super()._execute_all(commands, transaction=True)
            except redis.exceptions.ResponseError as error:
                elsewhere = redirection(error)
                if elsewhere is None:
                    raise
                if not elsewhere.is_moved:  # a key on its way: it has arrived in a moment
                    break
                self._follow(elsewhere)
        raise _undecided(self._slot)

    async def _replies(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Replies or errors; only those commands are sent again that were redirected."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            replies: list[Any] = await pipe.execute(raise_on_error=False)
        for position, reply in enumerate(replies):
            if elsewhere := redirection(reply):
                replies[position] = await self._elsewhere(elsewhere, commands[position])
        return replies

    async def _elsewhere(self, elsewhere: Redirection, command: Sequence[Any]) -> Any:
        try:
            if not elsewhere.is_moved:
                return await self._ask(elsewhere, command)
            self._follow(elsewhere)
            return await self._execute(*command)
        except redis.exceptions.ResponseError as refusal:
            return refusal

    def _follow(self, elsewhere: Redirection) -> None:
        """The slot has another master."""
        self.distrust()
        self._slots.note_moved(self._slot, self._address(elsewhere))

    async def _ask(self, elsewhere: Redirection, command: Sequence[Any]) -> Any:
        """The key is on its way to another server, or would be made there: this one command goes to it."""
        _, reply = await ask(self._server_url, self._address(elsewhere), ("ASKING",), command)
        if redirection(reply) is not None:
            raise _undecided(self._slot)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _address(self, elsewhere: Redirection) -> Address:
        return Address(elsewhere.host or self._slots.any_host(), elsewhere.port)


class ReplicatedClusterClient(ReplicatedClient, ClusterClient):
    """The same, where a write counts once replicas have it. A transaction, which only an operator's steps are, does not
    wait for them."""

    def __init__(
        self, server_url: str, stream: str, locator: SlotLocator, *, replicas: int, lease_s: float = 30.0
    ) -> None:
        ClusterClient.__init__(self, server_url, stream, locator, lease_s=lease_s)
        self._replicas = replicas

    async def _execute_all(self, commands: Sequence[Sequence[Any]], *, transaction: bool) -> list[Any]:
        if transaction:
            return await ClusterClient._execute_all(self, commands, transaction=True)  # noqa: SLF001 - its own
        return await super()._execute_all(commands, transaction=False)


def _undecided(slot: int) -> redis.exceptions.TryAgainError:
    return redis.exceptions.TryAgainError(f"slot {slot} is moving between servers")
