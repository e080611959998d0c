"""Telling others what was written: after the write, what gathers meanwhile goes together.

A NOTIFY inside the write would hold the server's one lock for notifications until that transaction is on the disk, so
that no two of them could be written at once. Sent by itself it waits for no disk. What a crash leaves unsaid between
the two is found by those who wait, because they look by themselves now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from queue_backends.errors import BackendUnavailable, QueueError
from queue_backends.postgresql.arrays import Texts
from queue_backends.postgresql.channels import Channel, channel_name, pack_chunks, pack_done
from queue_backends.postgresql.connections import Connections

RETRY_S = 0.5
MOST_WAITING = 10_000
"""Chunks and ends that wait for the server to be back. Whoever waits for more than these reads again by itself."""
FAREWELL_S = 2.0


class Announcer:
    """Announces for one process."""

    def __init__(self, connections: Connections, queue_id: int) -> None:
        self._connections = connections
        self._names = {channel: channel_name(connections.address.schema, queue_id, channel) for channel in Channel}
        self._chunks: list[tuple[str, Sequence[bytes]]] = []
        self._done: list[str] = []
        self._words: dict[tuple[Channel, str], None] = {}
        """Each once, in order."""
        self._sending: asyncio.Task[None] | None = None

    def work(self) -> None:
        """Something may be ready, or due sooner than others think."""
        self._say(Channel.WORK, "")

    def control(self, word: str) -> None:
        """A request to workers."""
        self._say(Channel.CONTROL, word)

    def done(self, task_id: str) -> None:
        """A task has ended."""
        self._done.append(task_id)
        self._send()

    def chunks(self, task_id: str, jsons: Sequence[bytes]) -> None:
        """Chunks were written."""
        self._chunks.append((task_id, jsons))
        self._send()

    def _say(self, channel: Channel, word: str) -> None:
        self._words[channel, word] = None
        self._send()

    def _send(self) -> None:
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all(), name="announcements")

    async def _send_all(self) -> None:
        while self._chunks or self._done or self._words:
            chunks, self._chunks = self._chunks, []
            done, self._done = self._done, []
            words, self._words = self._words, {}
            try:
                await self._notify(chunks, done, list(words))
            except BackendUnavailable:
                self._chunks = [*chunks, *self._chunks][-MOST_WAITING:]
                self._done = [*done, *self._done][-MOST_WAITING:]
                self._words = words | self._words
                await asyncio.sleep(RETRY_S)
            except QueueError:
                continue  # it can never be said: those whom it concerns find out by themselves

    async def _notify(
        self, chunks: Sequence[tuple[str, Sequence[bytes]]], done: Sequence[str], words: Sequence[tuple[Channel, str]]
    ) -> None:
        said = [(Channel.CHUNKS, payload) for payload in pack_chunks(chunks)]
        said += [(Channel.DONE, payload) for payload in pack_done(done)]
        said += words
        names, payloads = [self._names[channel] for channel, _ in said], [payload for _, payload in said]
        await self._connections.execute("notify", {"channels": Texts(names), "payloads": Texts(payloads)})

    async def close(self) -> None:
        """Say what is left, if that is possible at once."""
        if self._sending is not None and not self._sending.done():
            await asyncio.wait([self._sending], timeout=FAREWELL_S)
            self._sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sending
