"""Every kind of backend that is compared with the model: how it is started, and how much of it CI looks at."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple

from tests.cluster_servers import Cluster
from tests.nats_servers import NatsServer, nats_program
from tests.postgresql_servers import PostgresqlServer, debian_programs, embedded_programs
from tests.queue_backends.model.sites.memory import MemorySite
from tests.queue_backends.model.sites.nats import NatsSite
from tests.queue_backends.model.sites.postgresql import PostgresqlSite
from tests.queue_backends.model.sites.redis import RedisSite
from tests.queue_backends.model.sites.redis_cluster import RedisClusterSite
from tests.queue_backends.model.sites.site import Site
from tests.servers import PROGRAMS, Server

NewSite = Callable[[], Site]


class NotHere(Exception):
    """This machine does not have what the kind needs."""


class Kind(NamedTuple):
    """One kind of backend."""

    examples: int
    """How many histories are tried in CI."""
    running: Callable[[], AbstractContextManager[NewSite]]
    """Its servers, for the length of a block: in it, fresh queues are made. Raises `NotHere`."""
    is_repeatable: bool = True
    """Whether the same steps always have the same outcome. A backend may choose which of several lapsed tasks comes
    first, and some leave that to chance: then each history stands alone, and a failing one is not made shorter."""


@contextlib.contextmanager
def _memory(*, composed: bool) -> Iterator[NewSite]:
    yield lambda: MemorySite(composed=composed)


@contextlib.contextmanager
def _redis(name: str) -> Iterator[NewSite]:
    program = PROGRAMS[name]()
    if program is None:
        raise NotHere(f"no {name} on this machine")
    with Server(program) as server:
        yield lambda: RedisSite(server)


@contextlib.contextmanager
def _postgresql() -> Iterator[NewSite]:
    programs = embedded_programs() or debian_programs()
    if programs is None:
        raise NotHere("no PostgreSQL on this machine")
    with PostgresqlServer(programs) as server:
        yield lambda: PostgresqlSite(server)


@contextlib.contextmanager
def _nats() -> Iterator[NewSite]:
    program = nats_program()
    if program is None:
        raise NotHere("no NATS server on this machine")
    with NatsServer(program) as server:
        yield lambda: NatsSite(server)


@contextlib.contextmanager
def _redis_cluster() -> Iterator[NewSite]:
    program = PROGRAMS["valkey"]()
    if program is None:
        raise NotHere("no Valkey on this machine")
    with Cluster(program, replicas=0) as cluster:
        yield lambda: RedisClusterSite(cluster)


KINDS: Mapping[str, Kind] = {
    "memory": Kind(50, lambda: _memory(composed=False)),
    "composed": Kind(15, lambda: _memory(composed=True)),
    "valkey": Kind(25, lambda: _redis("valkey")),
    "nats": Kind(6, _nats, is_repeatable=False),
    "postgresql": Kind(4, _postgresql, is_repeatable=False),
    "redis-cluster": Kind(4, _redis_cluster, is_repeatable=False),
    "redis": Kind(8, lambda: _redis("redis")),
    "redis-6.2": Kind(8, lambda: _redis("redis-6.2")),
}
