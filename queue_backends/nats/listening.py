"""Core subjects that somebody listens to for a while: live chunks, ends of tasks, changes of keys."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.aio.msg import Msg

from queue_backends.nats.connection import Connection

MOST_WAITING_BYTES = 8 * 1024 * 1024
"""A listener that is further behind reads the rest from the stream."""


class Inbox:
    """What one listener has not looked at yet. Where something was missed, it is told so instead."""

    def __init__(self) -> None:
        self._messages: deque[Msg] = deque()
        self._size_bytes = 0
        self._news = asyncio.Event()
        self.missed = False
        """Something was announced and is not here; to be reset by who has read the stream."""
        self.closed = False

    def put(self, message: Msg) -> None:
        """An announcement."""
        if self._size_bytes > MOST_WAITING_BYTES:
            self.miss()
            return
        self._messages.append(message)
        self._size_bytes += len(message.data)
        self._news.set()

    def miss(self) -> None:
        """Announcements got lost, or there is no room for them."""
        self._messages.clear()
        self._size_bytes = 0
        self.missed = True
        self._news.set()

    def close(self) -> None:
        """No more will come."""
        self.closed = True
        self._news.set()

    def get_nowait(self) -> Msg | None:
        """The next announcement, if there is one."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._size_bytes -= len(message.data)
        return message

    async def get(self, timeout_s: float) -> Msg | None:
        """The next announcement; None if there is none in time, if some were missed, or if the inbox is closed."""
        if not self._messages and not self.missed and not self.closed:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
        return self.get_nowait()


class Listeners:
    """All inboxes of a backend, or of one of its parts."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inboxes: set[Inbox] = set()
        self._closed = False
        connection.on_return.add(self._missed)

    def _missed(self) -> None:
        for inbox in self._inboxes:
            inbox.miss()

    @asynccontextmanager
    async def listen(self, subject: str) -> AsyncIterator[Inbox]:
        """An inbox for a core subject, which may have wildcards, for the length of a block."""
        inbox = Inbox()
        inbox.closed = self._closed

        async def receive(message: Msg) -> None:
            inbox.put(message)

        self._inboxes.add(inbox)
        try:
            listening = await self._connection.listen(subject, receive)
            try:
                yield inbox
            finally:
                self._connection.forget(listening)
                await listening.stop()
        finally:
            self._inboxes.discard(inbox)

    def close(self) -> None:
        """End what listens."""
        self._closed = True
        self._connection.on_return.discard(self._missed)
        for inbox in self._inboxes:
            inbox.close()
