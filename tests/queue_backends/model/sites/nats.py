"""On a NATS server: an entry is offered again when the site says so, and its owner's lease counts as over from then on,
until it is renewed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nats
from nats.aio.client import Client

from queue_backends import Backend, BackendOptions, open_backend
from queue_backends.interfaces import Delivery
from queue_backends.nats.entries import DUE
from queue_backends.nats.holding import Held
from queue_backends.nats.ledger import Stored
from queue_backends.nats.queue import NatsQueue
from queue_backends.nats.records import TaskRecord
from queue_backends.nats.subjects import Subjects
from tests.nats_servers import NatsServer
from tests.servers import fresh_stream


class NatsSite:
    """A stream of its own on a server."""

    def __init__(self, server: NatsServer) -> None:
        stream = fresh_stream()
        self._server_url, self._url = server.url(), server.url(stream)
        self._subjects = Subjects(stream)
        self._opened: list[NatsQueue] = []
        self._ended: dict[str, float] = {}
        """Token -> when its lease had last been renewed as it was ended."""
        self._client: Client | None = None

    async def open(self, options: BackendOptions) -> Backend:
        """Another connection, whose claims hear from the site which leases are over."""
        backend = await open_backend(self._url, options)
        assert isinstance(backend.queue, NatsQueue)
        self._opened.append(backend.queue)
        claimer = backend.queue._puller._claimer
        witnesses = claimer._left_s

        def left_s(stored: Stored, record: TaskRecord, beats: Mapping[str, Any]) -> float:
            return 0.0 if self._is_over(record.token) else witnesses(stored, record, beats)

        vars(claimer)["_left_s"] = left_s
        return backend

    def _is_over(self, token: str) -> bool:
        held = self._held(token)
        return token in self._ended and (held is None or held.renewed_at == self._ended[token])

    def _held(self, token: str) -> Held | None:
        return next((held for queue in self._opened if (held := queue._holdings.holds(token))), None)

    async def end_lease(self, delivery: Delivery) -> None:
        """The server is told to offer the entry again, and answers when it will."""
        held = self._held(delivery.token)
        assert held is not None, "the model says that somebody has it"
        self._ended[delivery.token] = held.renewed_at
        await (await self._connected()).request(held.ack_subject, b"-NAK", timeout=10)

    async def end_delay(self, task_id: str) -> None:
        """The same entry again, due long ago."""
        stream = (await self._connected()).jetstream()
        subject = self._subjects.later(task_id)
        entry = await stream.get_last_msg(self._subjects.stream, subject)
        await stream.publish(subject, entry.data or b"", headers={**_ours(entry.headers or {}), DUE: "1.0"})

    async def _connected(self) -> Client:
        if self._client is None:
            self._client = await nats.connect(self._server_url)
        return self._client

    def look_around(self, backend: Backend) -> None:
        """At once, although the server has just been started."""
        assert isinstance(backend.queue, NatsQueue)
        backend.queue._puller._looked_for_due_at = float("-inf")

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()


def _ours(headers: Mapping[str, str]) -> dict[str, str]:
    """Without what belongs to the write that an entry came with, such as the batch that it was a part of."""
    return {name: value for name, value in headers.items() if name.startswith("Shoal-")}
