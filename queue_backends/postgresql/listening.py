"""One listening connection per process, whatever the number of listeners, supervised and made anew."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import psycopg
import structlog

from queue_backends.errors import BackendUnavailable
from queue_backends.postgresql.channels import Channel, channel_name, read
from queue_backends.postgresql.connections import COMMAND_TIMEOUT_S, Connections
from queue_backends.postgresql.inbox import Inbox
from queue_backends.postgresql.sessions import Connection, connect, cut

QUIET_S = 10.0
"""After this long without any notification the connection is asked whether it still lives."""
ANSWER_S = 5.0
"""So long may the answer take."""
TRUSTED_S = 2.0
"""Each new connection lets all listeners read again what they may have missed, so it is given some time."""

log = structlog.get_logger(__name__)


class Hub:
    """Shares one connection among all listeners of a backend."""

    def __init__(self, connections: Connections, queue_id: int) -> None:
        connections.on_distrust = self.distrust
        self._connections = connections
        schema = connections.address.schema
        self._names = {channel: channel_name(schema, queue_id, channel) for channel in Channel}
        self._channels = {name: channel for channel, name in self._names.items()}
        self._inboxes: defaultdict[tuple[Channel, str], set[Inbox]] = defaultdict(set)
        self._confirmed: dict[Channel, asyncio.Event] = {}
        """Channels that somebody has had use for; set while the server knows it."""
        self._connection: Connection | None = None
        self._wanted = asyncio.Event()
        """A channel is to be added, or the connection is broken."""
        self._heard = asyncio.Event()
        self._watched: int | None = None
        """The socket that the event loop tells us about."""
        self._is_broken = False
        self._connected_at = 0.0
        self._keeper: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def listen(self, channel: Channel, key: str = "") -> AsyncIterator[Inbox]:
        """News for `key`. When the body begins, the server has confirmed: nothing said later is missed.

        Raises `BackendUnavailable` if it does not confirm in time.
        """
        inbox = Inbox()
        listeners = self._inboxes[channel, key]
        listeners.add(inbox)
        try:
            await self.confirm(channel)
            yield inbox
        finally:
            listeners.discard(inbox)
            if not listeners and self._inboxes.get((channel, key)) is listeners:
                del self._inboxes[channel, key]

    async def confirm(self, channel: Channel) -> None:
        """Return when the server knows that we listen there."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="postgresql listener")
        confirmed = self._confirmed.get(channel)
        if confirmed is None:
            confirmed = self._confirmed[channel] = asyncio.Event()
            self._wanted.set()
            self._heard.set()
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                await confirmed.wait()
        except TimeoutError as error:
            raise BackendUnavailable(f"the server did not confirm to listen within {COMMAND_TIMEOUT_S:g} s") from error

    def distrust(self) -> None:
        """Others have found that their connections lead nowhere: make this one anew too, unless it is quite new."""
        if self._connection is not None and asyncio.get_running_loop().time() - self._connected_at > TRUSTED_S:
            self._break()

    def _break(self) -> None:
        self._is_broken = True
        self._wanted.set()
        self._heard.set()

    async def _keep(self) -> None:
        delay_s = 0.05
        while True:
            try:
                async with asyncio.timeout(COMMAND_TIMEOUT_S):
                    await self._connect()
                delay_s = 0.05
                await self._serve()
            except (psycopg.Error, OSError) as error:
                self._connections.met(error)
            finally:
                await self._disconnect()
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, 2.0)

    async def _connect(self) -> None:
        self._is_broken = False
        connection = self._connection = await connect(self._connections.address)
        connection.add_notify_handler(lambda said: self._dispatch(said.channel, said.payload.encode()))
        await self._listen_to(list(self._confirmed))
        self._connected_at = asyncio.get_running_loop().time()
        self._connections.availability.answered()

    async def _listen_to(self, channels: list[Channel]) -> None:
        connection = self._connection
        if connection is None or not channels:
            return
        await connection.execute("; ".join(f'LISTEN "{self._names[channel]}"' for channel in channels).encode())
        for channel in channels:
            self._confirmed[channel].set()
            for (other, _), inboxes in list(self._inboxes.items()):
                for inbox in inboxes if other is channel else ():
                    inbox.put(None)

    async def _serve(self) -> None:
        """Dispatch what comes; between statements of our own, which the driver waits for by itself."""
        connection = self._connection
        if connection is None:
            return
        while not self._is_broken:
            self._wanted.clear()
            async with asyncio.timeout(ANSWER_S):
                missing = [channel for channel, confirmed in self._confirmed.items() if not confirmed.is_set()]
                await (self._listen_to(missing) if missing else connection.execute(b"SELECT 1"))
            self._watched = connection.fileno()
            asyncio.get_running_loop().add_reader(self._watched, self._readable, connection)
            try:
                self._readable(connection)
                await self._quiet()
            finally:
                self._unwatch()
        raise psycopg.OperationalError("the listening connection is broken")

    async def _quiet(self) -> None:
        """Return when nothing was heard for a while, or there is something to do."""
        while not self._wanted.is_set():
            self._heard.clear()
            try:
                async with asyncio.timeout(QUIET_S):
                    await self._heard.wait()
            except TimeoutError:
                return

    def _readable(self, connection: Connection) -> None:
        try:
            connection.pgconn.consume_input()
            while said := connection.pgconn.notifies():
                self._dispatch(said.relname.decode(), said.extra)
        except psycopg.Error:
            self._unwatch()  # now: libpq has closed the socket, and the next one to be opened gets its number
            self._break()
        self._heard.set()

    def _unwatch(self) -> None:
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._watched = None

    def _dispatch(self, name: str, payload: bytes) -> None:
        channel = self._channels.get(name)
        if channel is None:
            return
        try:
            news = read(channel, payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            log.warning("an announcement cannot be read", channel=name)
            return
        for key, item in news:
            for inbox in self._inboxes.get((channel, key), ()):
                inbox.put(item)

    async def _disconnect(self) -> None:
        for confirmed in self._confirmed.values():
            confirmed.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            cut(connection)
            await connection.close()

    async def close(self) -> None:
        """End the connection and wake all listeners: nothing more will come."""
        for inboxes in self._inboxes.values():
            for inbox in inboxes:
                inbox.close()
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
