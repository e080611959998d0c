"""What must be there before a queue works: the stream with its features, and a consumer for each lane."""

from __future__ import annotations

from typing import Any

from queue_backends.errors import BackendMisconfigured, BackendUnavailable
from queue_backends.nats.connection import Connection
from queue_backends.nats.ledger import Ledger
from queue_backends.nats.subjects import CONSUMERS, DEAD

NANOSECONDS = 1_000_000_000
_NEEDED = ("allow_direct", "allow_atomic", "allow_msg_ttl")


class SetUp:
    """Creates what is missing; changes nothing that does."""

    def __init__(self, ledger: Ledger, lease_s: float) -> None:
        self._ledger = ledger
        self._connection: Connection = ledger.connection
        self._subjects = ledger.subjects
        self._ack_wait = max(1_000_000, round(lease_s * NANOSECONDS))
        self._leased = False

    async def prepare(self) -> None:
        """The stream, and its consumers. Raises `BackendMisconfigured` for a stream that is somebody else's."""
        await self._prepare_stream()
        await self._ledger.info()
        known = await self._known_consumers()
        for name in CONSUMERS:
            if name not in known:
                await self._create_consumer(name, self._ack_wait)

    async def lease(self) -> None:
        """Before the first pull: leases last as long as this process' options say."""
        if self._leased:
            return
        known = await self._known_consumers()
        for name in CONSUMERS:
            if known.get(name) != self._ack_wait and name != DEAD:
                await self._create_consumer(name, self._ack_wait)
        self._leased = True

    async def again(self) -> None:
        """The server has lost the stream, or a consumer: make it anew."""
        self._leased = False
        await self.prepare()

    async def _known_consumers(self) -> dict[str, int]:
        reply = await self._connection.api(f"CONSUMER.LIST.{self._subjects.stream}", {"offset": 0})
        return {found["name"]: int(found["config"].get("ack_wait", 0)) for found in reply.get("consumers") or ()}

    async def _prepare_stream(self) -> None:
        wanted = self._stream_config()
        reply = await self._connection.request(
            f"{self._connection.api_prefix}.STREAM.INFO.{self._subjects.stream}", b""
        )
        if b'"err_code":10059' in reply.data:
            await self._connection.api(f"STREAM.CREATE.{self._subjects.stream}", wanted)
            return
        found = (await self._ledger.info())["config"]
        self._check_ours(found)
        replicas = self._connection.address.replicas
        if replicas and found.get("num_replicas") != replicas:
            await self._connection.api(f"STREAM.UPDATE.{self._subjects.stream}", {**found, "num_replicas": replicas})

    def _stream_config(self) -> dict[str, Any]:
        subjects = self._subjects
        return {
            "name": subjects.stream,
            "description": f"Shoal queue {subjects.queue}",
            "subjects": subjects.kept,
            "retention": "workqueue",
            "storage": "file",
            "discard": "old",
            "max_msgs_per_subject": 1,
            "num_replicas": self._connection.address.replicas or 1,
            "duplicate_window": 120 * NANOSECONDS,
            "republish": {"src": subjects.announced, "dest": subjects.live},
            **dict.fromkeys(_NEEDED, True),
        }

    def _check_ours(self, found: dict[str, Any]) -> None:
        missing = [name for name in _NEEDED if not found.get(name)]
        if missing or found.get("subjects") != self._subjects.kept or found.get("retention") != "workqueue":
            raise BackendMisconfigured(
                f"the NATS stream {self._subjects.stream!r} was not made by Shoal: choose another name with ?stream="
            )

    async def _create_consumer(self, name: str, ack_wait: int) -> None:
        subject = self._subjects.filter_of(name)
        config = {
            "durable_name": name,
            "name": name,
            "ack_policy": "explicit",
            "ack_wait": ack_wait,
            "deliver_policy": "all",
            "filter_subject": subject,
            "max_ack_pending": -1,
            "max_deliver": -1,
            "max_waiting": 10_000,
        }
        stream = self._subjects.stream
        body = {"stream_name": stream, "action": "", "config": config}
        try:
            await self._connection.api(f"CONSUMER.CREATE.{stream}.{name}.{subject}", body)
        except BackendMisconfigured as error:  # several processes may make it at the same moment
            raise BackendUnavailable(f"consumer {name!r} cannot be made: {error}") from error
