"""The queue's stream as a ledger of records: read the last ones, write some if they are as expected, all or none."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct
from nats.aio.msg import Msg

from queue_backends.errors import BackendUnavailable, QueueError
from queue_backends.nats.batches import Batches, decode_reply
from queue_backends.nats.calls import check_reply, status_of
from queue_backends.nats.connection import Connection
from queue_backends.nats.refusals import refusal
from queue_backends.nats.subjects import Subjects
from queue_backends.nats.writes import MOST_PER_BATCH, Write

MOST_SUBJECTS = 300
"""Asked for in one request. With wildcards for lanes, no more than a thousand answers come back."""
FEW = 3
"""So many single reads are faster than one of many."""
PAGE = 256
PAGE_BYTES = 4_000_000


class Stored(Struct, frozen=True):
    """A message as it is kept."""

    subject: str
    revision: int
    """Its sequence number in the stream, which no other message ever has."""
    at: float
    """Unix seconds, by the server's clock."""
    data: bytes
    headers: Mapping[str, str]

    @property
    def name(self) -> str:
        """The subject's last token."""
        return self.subject.rpartition(".")[2]


class Ledger:
    """One queue's stream."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self.connection = connection
        self.subjects = subjects
        self.replicated = False
        """Then a plain read may come from a server that has not heard of the last writes yet."""
        self.ahead_s = 0.0
        """The server's clock minus our own."""
        self._batches = Batches(connection)

    def now(self) -> float:
        """The server's clock, as far as its last answer told. Unix seconds."""
        return datetime.now(UTC).timestamp() + self.ahead_s

    async def info(self) -> dict[str, Any]:
        """The stream's facts; sets our idea of the server's clock, too."""
        before = datetime.now(UTC).timestamp()
        info = await self.connection.api(f"STREAM.INFO.{self.subjects.stream}")
        after = datetime.now(UTC).timestamp()
        self.ahead_s = timestamp(str(info["ts"])) - (before + after) / 2
        self.replicated = int(info["config"].get("num_replicas", 1)) > 1
        return info

    async def write(self, write: Write) -> int:
        """Keep one message; returns its revision. Raises `Conflict` if the last one is not as expected."""
        message = await self.connection.request(write.subject, write.data, write.all_headers())
        reply = decode_reply(message.data)
        if reply.error is not None:
            raise refusal(reply.error)
        return reply.seq

    async def write_all(self, writes: Sequence[Write]) -> list[int]:
        """Keep all of them or none, in one step; returns their revisions. Raises `Conflict` or `QueueError`."""
        if not writes:
            return []
        if len(writes) == 1:
            return [await self.write(writes[0])]
        if len(writes) > MOST_PER_BATCH:
            raise QueueError(f"{len(writes)} messages in one step, at most {MOST_PER_BATCH} are possible")
        return await self._batches.write(writes)

    async def close(self) -> None:
        """Let what is on its way arrive."""
        await self._batches.close()

    async def last(self, subject: str, *, fresh: bool = False) -> Stored | None:
        """The message that a subject keeps."""
        return (await self.last_of([subject], fresh=fresh)).get(subject)

    async def last_of(self, subjects: Sequence[str], *, fresh: bool = False) -> dict[str, Stored]:
        """The last messages of subjects, which may have wildcards. With `fresh`, all that was ever confirmed is seen;
        then wildcards are not allowed."""
        if fresh and self.replicated:
            found = await asyncio.gather(*(self._from_leader(subject) for subject in subjects))
            return {stored.subject: stored for stored in found if stored is not None}
        if len(subjects) <= FEW and not any("*" in subject for subject in subjects):
            few = await asyncio.gather(*map(self.last_matching, subjects))
            return {stored.subject: stored for stored in few if stored is not None}
        parts = [subjects[first : first + MOST_SUBJECTS] for first in range(0, len(subjects), MOST_SUBJECTS)]
        pages = await asyncio.gather(*(self._get({"multi_last": list(part)}) for part in parts))
        return {stored.subject: stored for page, _ in pages for stored in page}

    async def _from_leader(self, subject: str) -> Stored | None:
        verb = f"STREAM.MSG.GET.{self.subjects.stream}"
        message = await self.connection.request(
            f"{self.connection.api_prefix}.{verb}", msgspec.json.encode({"last_by_subj": subject})
        )
        if b'"err_code":10037' in message.data[:300]:
            return None
        check_reply(message.data)
        found = msgspec.json.decode(message.data)["message"]
        headers = _headers_of(base64.b64decode(found.get("hdrs", "")))
        data = base64.b64decode(found.get("data", ""))
        return Stored(found["subject"], found["seq"], timestamp(found["time"]), data, headers)

    async def page(self, subject: str, *, start: int = 1, limit: int = PAGE) -> tuple[list[Stored], int]:
        """The first messages of a subject with wildcards, from a revision on, and how many are left after them."""
        return await self._get({"next_by_subj": subject, "seq": max(1, start), "batch": limit, "max_bytes": PAGE_BYTES})

    async def first(self, subject: str, limit: int, *, start: int = 1) -> list[Stored]:
        """The first messages of a subject with wildcards, from a revision on, in as many pages as it takes."""
        found, left = await self.page(subject, start=start, limit=limit)
        while left and found and len(found) < limit:
            more, left = await self.page(subject, start=found[-1].revision + 1, limit=limit - len(found))
            if not more:
                break
            found += more
        return found

    async def every(self, subject: str) -> AsyncIterator[Stored]:
        """All messages of a subject with wildcards, oldest first."""
        start, left = 1, 1
        while left:
            found, left = await self.page(subject, start=start)
            for stored in found:
                yield stored
            if not found:
                return
            start = found[-1].revision + 1

    async def last_matching(self, subject: str) -> Stored | None:
        """The newest message of a subject with wildcards."""
        message = await self.connection.request(
            f"{self.connection.api_prefix}.DIRECT.GET.{self.subjects.stream}",
            msgspec.json.encode({"last_by_subj": subject}),
        )
        return None if status_of(message) else stored_of(message)

    async def newest(self, subject: str, limit: int) -> list[Stored]:
        """The last messages of a subject with wildcards, newest first."""
        found, left = await self.page(subject, limit=max(1, limit))
        if left:
            first, last = found[0].revision, int((await self.info())["state"]["last_seq"])
            start = await self._start_of_last(subject, limit, first, last)
            found, left = await self.page(subject, start=start, limit=PAGE)
            while left:
                more, left = await self.page(subject, start=found[-1].revision + 1)
                found += more
                if not more:
                    break
        return found[::-1][:limit]

    async def _start_of_last(self, subject: str, limit: int, first: int, last: int) -> int:
        """From where on a few more than `limit` messages are left; the server counts them without sending them."""
        low, high = first, last
        while high - low > limit:
            middle = (low + high) // 2
            found, left = await self.page(subject, start=middle, limit=1)
            count = len(found) + left
            if limit <= count <= 2 * limit:
                return middle
            low, high = (middle, high) if count > limit else (low, middle)
        return low

    async def _get(self, body: Mapping[str, Any]) -> tuple[list[Stored], int]:
        subject = f"{self.connection.api_prefix}.DIRECT.GET.{self.subjects.stream}"
        messages, end = await self.connection.collect(subject, msgspec.json.encode(body))
        status = status_of(end)
        if status == "404":
            return [], 0
        if status != "204":
            raise QueueError(f"the NATS server refused to read the queue's stream: status {status}")
        left = int((end.headers or {}).get("Nats-Num-Pending", "0"))
        return [stored_of(message) for message in messages], left

    async def purge(self, subject: str, *, before: int = 0, keep: int = 0) -> int:
        """Delete a subject's messages; those before a revision, or all but the last `keep`. Returns how many."""
        body: dict[str, Any] = {"filter": subject}
        if before:
            body["seq"] = before
        elif keep:
            body["keep"] = keep
        reply = await self.connection.api(f"STREAM.PURGE.{self.subjects.stream}", body)
        return int(reply.get("purged", 0))


def stored_of(message: Msg) -> Stored:
    """A message that was read, or announced."""
    headers = message.headers or {}
    try:
        return Stored(
            headers["Nats-Subject"],
            int(headers["Nats-Sequence"]),
            timestamp(headers["Nats-Time-Stamp"]),
            message.data,
            headers,
        )
    except KeyError as error:
        raise BackendUnavailable(f"the NATS server's answer has no header {error}") from error


def timestamp(text: str) -> float:
    """Unix seconds of an RFC 3339 moment with nanoseconds."""
    return datetime.fromisoformat(text).timestamp()


def _headers_of(raw: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in raw.decode("utf-8", "replace").split("\r\n")[1:])
    return {name: value.strip() for name, separator, value in lines if separator}
