"""Every engine that can be attacked, by the name that the command line gives it."""

from __future__ import annotations

from collections.abc import Mapping

from tests.faults.brokers.broker import Broker
from tests.faults.brokers.cluster import ClusterBroker, WaitingClusterBroker
from tests.faults.brokers.nats import NatsBroker
from tests.faults.brokers.postgresql import PostgresqlBroker
from tests.faults.brokers.redis import DebianRedisBroker, ValkeyBroker
from tests.faults.brokers.sentinel import SentinelBroker, WaitingSentinelBroker

KINDS: tuple[type[Broker], ...] = (
    ValkeyBroker,
    DebianRedisBroker,
    SentinelBroker,
    WaitingSentinelBroker,
    ClusterBroker,
    WaitingClusterBroker,
    NatsBroker,
    PostgresqlBroker,
)

ENGINES: Mapping[str, type[Broker]] = {kind.name: kind for kind in KINDS}
