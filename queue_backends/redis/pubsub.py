"""One pub/sub connection per backend, whatever the number of subscriptions, supervised and reconnected."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis.exceptions
import structlog

from queue_backends.errors import BackendUnavailable, QueueError
from queue_backends.redis.client import COMMAND_TIMEOUT_S, RedisClient

QUIET_S = 10.0
"""After this long without any message the connection is asked whether it still lives."""
ANSWER_S = 5.0
"""So long may the answer take."""
TRUSTED_S = 2.0
"""Each new connection lets all subscriptions read again what they may have missed, so it is given some time."""

log = structlog.get_logger(__name__)


INBOX_MESSAGES = 1000
INBOX_BYTES = 1_000_000


class Inbox:
    """Messages of one channel for one listener. A full one forgets them all and says so: the listener reads again
    from where it knows, so that a slow listener costs a bounded amount of memory and misses nothing."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._held_bytes = 0
        self._filled = asyncio.Event()
        self._gap = False
        self.closed = False
        """The backend was closed: nothing more will come."""

    def put(self, message: bytes) -> None:
        """Add a message."""
        self._held_bytes += len(message)
        if self._messages and (len(self._messages) >= INBOX_MESSAGES or self._held_bytes > INBOX_BYTES):
            self.mark_gap()
        else:
            self._messages.append(message)
            self._filled.set()

    def mark_gap(self) -> None:
        """Say that messages may be missing."""
        self._messages.clear()
        self._held_bytes = 0
        self._gap = True
        self._filled.set()

    def close(self) -> None:
        """Wake the listener for good."""
        self.closed = True
        self._filled.set()

    async def get(self, timeout_s: float) -> bytes | None:
        """The next message; None if messages may be missing, or if none came in time."""
        if not self._filled.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._filled.wait()
        if self._gap or not self._messages:
            self._gap = False
            if not self._messages:
                self._filled.clear()
            return None
        message = self._messages.popleft()
        self._held_bytes -= len(message)
        if not self._messages:
            self._filled.clear()
        return message


class Channel:
    """A channel's listeners, and whether the server has confirmed the subscription."""

    def __init__(self) -> None:
        self.inboxes: set[Inbox] = set()
        self.confirmed = asyncio.Event()


class _ChannelsMovedError(Exception):
    """The slot of our channels has gone to another server of the cluster, which is no fault of any."""


class PubSubHub:
    """Shares one connection among all listeners of a backend."""

    def __init__(self, client: RedisClient, anchor: str) -> None:
        self._client = client
        client.on_distrust = self.distrust
        self._anchor = anchor  # always subscribed, so that the connection is never without a channel
        self._channels: dict[str, Channel] = {}
        self._pubsub: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._reading: asyncio.Timeout | None = None
        self._connected_at = 0.0
        self._complaint = ""

    @asynccontextmanager
    async def listen(self, name: str) -> AsyncIterator[Inbox]:
        """Messages of a channel. When the body begins, the server has confirmed: nothing sent later is missed.

        Raises `BackendUnavailable` if it does not confirm in time.
        """
        if self._reader is None:
            self._reader = asyncio.create_task(self._run(), name="redis pub/sub reader")
        inbox = Inbox()
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel()
            await self._send("SUBSCRIBE", name)
        channel.inboxes.add(inbox)
        try:
            await self._confirmation(name, channel)
            yield inbox
        finally:
            channel.inboxes.discard(inbox)
            if not channel.inboxes and self._channels.get(name) is channel:
                del self._channels[name]
                await self._send("UNSUBSCRIBE", name)

    async def _confirmation(self, name: str, channel: Channel) -> None:
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                await channel.confirmed.wait()
        except TimeoutError as error:
            raise BackendUnavailable(
                f"the server did not confirm a subscription to {name!r} within {COMMAND_TIMEOUT_S} s"
            ) from error

    async def _send(self, verb: str, name: str) -> None:
        pubsub = self._pubsub
        if pubsub is None:  # the reader subscribes to every known channel once it is connected
            return
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                await self._command(pubsub, verb, name)
        except (redis.exceptions.RedisError, OSError):
            return  # the reader meets the same fault, reconnects, and subscribes to what is wanted then
        except AttributeError:
            if pubsub is self._pubsub:
                raise  # else the driver has stumbled over what the reader has closed meanwhile
        except RuntimeError as error:
            if not _says_closed(error):
                raise  # else uvloop says in its way that the connection is lost
        finally:
            if pubsub is not self._pubsub:  # the driver may have opened a connection again that the reader had closed
                await self._closed(pubsub)

    async def _command(self, pubsub: Any, verb: str, *names: str) -> None:
        """The driver's own methods keep books that we have no use for, and its older versions know no sharded ones."""
        await pubsub.execute_command(f"S{verb}" if self._client.sharded else verb, *names)

    def distrust(self) -> None:
        """Others have found that their connections lead nowhere: make this one anew too, unless it is quite new."""
        now, reading = asyncio.get_running_loop().time(), self._reading
        if reading is not None and now - self._connected_at > TRUSTED_S:
            self._reading = None  # once: a time limit that has run out cannot be changed any more
            reading.reschedule(now)

    async def _run(self) -> None:
        delay_s = 0.05
        while True:
            try:
                await self._connect()
                delay_s = 0.05
                await self._read()
            except _ChannelsMovedError:
                self._client.distrust()
            except (redis.exceptions.RedisError, OSError) as error:
                self._complain(self._client.met(error))
            finally:
                await self._disconnect()
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, 2.0)

    def _complain(self, error: QueueError) -> None:
        """An outage is said once, for all connections; what else keeps this one from its channels, here."""
        if not isinstance(error, BackendUnavailable) and str(error) != self._complaint:
            self._complaint = str(error)
            log.warning("cannot subscribe to channels, trying again", error=self._complaint)

    async def _connect(self) -> None:
        for channel in self._channels.values():
            channel.confirmed.clear()
        pubsub = self._client.redis.pubsub()
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                subscribed = {self._anchor, *self._channels}
                await self._command(pubsub, "SUBSCRIBE", *subscribed)
                while late := set(self._channels) - subscribed:  # asked for while we were connecting
                    await self._command(pubsub, "SUBSCRIBE", *late)
                    subscribed |= late
        finally:
            self._pubsub = pubsub  # a failed one is closed all the same
        self._connected_at = asyncio.get_running_loop().time()
        self._client.availability.answered()

    async def _disconnect(self) -> None:
        self._reading = None
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            await self._closed(pubsub)

    async def _closed(self, pubsub: Any) -> None:
        with contextlib.suppress(redis.exceptions.RedisError, OSError):
            await pubsub.aclose()

    async def _read(self) -> None:
        async with asyncio.timeout(None) as self._reading:
            try:
                await self._read_on()
            finally:
                self._reading = None  # a time limit that has come to its end cannot be changed any more

    async def _read_on(self) -> None:
        asked = False
        while True:
            message = await self._pubsub.get_message(timeout=ANSWER_S if asked else QUIET_S)
            if message is not None:
                asked = False
                self._dispatch(message)
                continue
            if asked:
                raise redis.exceptions.ConnectionError(f"no answer for {ANSWER_S} s")
            await self._pubsub.ping()
            asked = True

    def _dispatch(self, message: dict[str, Any]) -> None:
        name = message["channel"]
        if message["type"] == "sunsubscribe" and name == self._anchor.encode():  # never asked for
            raise _ChannelsMovedError
        channel = self._channels.get(name.decode() if isinstance(name, bytes) else name or "")
        if channel is None:
            return
        if message["type"] in ("message", "smessage"):
            for inbox in channel.inboxes:
                inbox.put(message["data"])
        elif message["type"] in ("subscribe", "ssubscribe"):
            channel.confirmed.set()
            for inbox in channel.inboxes:
                inbox.mark_gap()

    async def close(self) -> None:
        """End the connection and wake all listeners: nothing more will come."""
        for channel in self._channels.values():
            for inbox in channel.inboxes:
                inbox.close()
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
            self._reader = None


def _says_closed(error: RuntimeError) -> bool:
    return "closed" in str(error)
