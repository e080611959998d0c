"""Atomic batches: what several callers write at the same moment travels together.

A server with one copy of the stream stages each batch on its disk, which takes milliseconds whatever the batch's size;
so one batch for many costs as much as one for each. If a joint batch is refused, each of its parts is tried alone.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Sequence
from typing import TypeAlias

import msgspec
from msgspec import Struct

from queue_backends.errors import BackendUnavailable, QueueError
from queue_backends.nats.connection import Connection
from queue_backends.nats.refusals import ApiError, Conflict, refusal
from queue_backends.nats.writes import MOST_PER_BATCH, Write

MOST_BATCH_BYTES = 8_000_000
MOST_BATCHES = 4
"""Under way at once from one process: the server has room for fifty in a stream."""
CLOSE_WITHIN_S = 10.0


class Reply(Struct):
    """What the server says to a message that it was to keep."""

    seq: int = 0
    error: ApiError | None = None


decode_reply = msgspec.json.Decoder(Reply).decode


class _Part:
    """The writes of one caller, and whoever waits for them."""

    __slots__ = ("done", "size_bytes", "touched", "writes")

    def __init__(self, writes: Sequence[Write]) -> None:
        self.writes = writes
        self.done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self.touched = {write.subject for write in writes} | {write.expected_of for write in writes} - {""}
        self.size_bytes = sum(len(write.data) for write in writes)

    def settle(self, outcome: list[int] | Exception) -> None:
        if self.done.done():
            return
        if isinstance(outcome, list):
            self.done.set_result(outcome)
        else:
            self.done.set_exception(outcome)


_Group: TypeAlias = list[_Part]


class Batches:
    """Sends batches for one process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: list[_Part] = []
        self._senders: set[asyncio.Task[None]] = set()
        self._prefix = uuid.uuid4().hex[:16]
        self._numbers = itertools.count(1)

    async def write(self, writes: Sequence[Write]) -> list[int]:
        """Keep all of them or none; returns their revisions. Raises `Conflict` or `QueueError`."""
        part = _Part(writes)
        self._waiting.append(part)
        if len(self._senders) < MOST_BATCHES:
            sender = asyncio.create_task(self._send_waiting(), name="batches")
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        return await part.done

    async def close(self) -> None:
        """Let what is on its way arrive."""
        if self._senders:
            await asyncio.wait(self._senders, timeout=CLOSE_WITHIN_S)
        for sender in self._senders:
            sender.cancel()

    async def _send_waiting(self) -> None:
        while self._waiting:
            await self._send(self._next_group())

    def _next_group(self) -> _Group:
        """As many parts as fit into a batch. Two that touch the same subject never go together: the second one's
        expectation is about what the first one leaves."""
        group: _Group = []
        rest: list[_Part] = []
        touched: set[str] = set()
        count = size_bytes = 0
        for part in self._waiting:
            is_full = count + len(part.writes) > MOST_PER_BATCH or size_bytes + part.size_bytes > MOST_BATCH_BYTES
            if group and (is_full or touched & part.touched):
                rest.append(part)
                touched |= part.touched  # what comes after it must not overtake it
                continue
            group.append(part)
            touched |= part.touched
            count += len(part.writes)
            size_bytes += part.size_bytes
        self._waiting = rest
        return group

    async def _send(self, group: _Group) -> None:
        try:
            last = await self._send_batch([write for part in group for write in part.writes])
        except BackendUnavailable as error:
            for part in group:
                refused = BackendUnavailable(str(error))
                refused.__cause__ = error.__cause__
                part.settle(refused)
        except (Conflict, QueueError) as error:
            if len(group) == 1:
                group[0].settle(error)
            else:
                await asyncio.gather(*(self._send([part]) for part in group))
        except BaseException:
            for part in group:
                part.done.cancel()
            raise
        else:
            first = last - sum(len(part.writes) for part in group) + 1
            for part in group:
                part.settle(list(range(first, first + len(part.writes))))
                first += len(part.writes)

    async def _send_batch(self, writes: Sequence[Write]) -> int:
        """The revision of the last one; the others have those before it."""
        batch_id = f"{self._prefix}{next(self._numbers)}"
        for number, write in enumerate(writes, start=1):
            headers = write.all_headers()
            headers["Nats-Batch-Id"], headers["Nats-Batch-Sequence"] = batch_id, str(number)
            if number < len(writes):
                await self._connection.publish(write.subject, write.data, headers)
        headers["Nats-Batch-Commit"] = "1"
        message = await self._connection.request(writes[-1].subject, writes[-1].data, headers)
        reply = decode_reply(message.data)
        if reply.error is not None:
            raise refusal(reply.error)
        return reply.seq
