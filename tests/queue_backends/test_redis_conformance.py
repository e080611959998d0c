"""The Redis backend keeps every promise of the contract, on real servers of each kind that is supported."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import redis.asyncio

from queue_backends.conformance import BackendConformance, InjectRaw, OpenBackend, opener
from tests.servers import PROGRAMS, Server


@pytest.fixture(scope="module", params=sorted(PROGRAMS))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that the module's tests share."""
    program = PROGRAMS[request.param]()
    if program is None:
        pytest.skip(f"no {request.param} on this machine")
    with Server(program) as started:
        yield started


class TestRedisConformance(BackendConformance):
    """The whole suite."""

    @pytest.fixture
    async def open_backend(self, server: Server, stream: str) -> AsyncIterator[OpenBackend]:
        """A fresh queue."""
        async with opener(server.url(stream)) as open_again:
            yield open_again

    @pytest.fixture
    def inject_raw(self, server: Server, stream: str) -> InjectRaw:
        """XADD, as any engine can do it."""

        async def inject(fields: dict[str, bytes]) -> None:
            async with redis.asyncio.Redis.from_url(server.url()) as client:
                await client.xadd(stream, {name.encode(): value for name, value in fields.items()})

        return inject
