"""A real cluster for tests: three masters with a replica each, on loopback, joined by plain commands."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
import redis.crc
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers import Server, free_port

SLOTS = 16384
NODE_TIMEOUT_MS = 1000
READY_WITHIN_S = 30.0


class Cluster:
    """Six servers, of which the first three begin as masters of a third of the slots each.

    `replicas=0` leaves it at the masters. Ports stay the same over restarts.
    """

    def __init__(
        self,
        program: Path,
        *,
        masters: int = 3,
        replicas: int = 1,
        durable: bool = False,
        options: Iterable[str] = (),
        node_timeout_ms: int = NODE_TIMEOUT_MS,
    ) -> None:
        self._masters = masters
        self._count = masters * (1 + replicas)
        self._program = program
        self._durable = durable
        self._options = (
            *("--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms)),
            *("--cluster-allow-replica-migration", "no", "--cluster-replica-validity-factor", "0"),
            *("--repl-diskless-sync-delay", "0"),
            *options,
        )
        self.nodes = self._new_nodes()

    def _new_nodes(self) -> list[Server]:
        return [
            Server(
                self._program,
                durable=self._durable,
                options=("--cluster-port", str(free_port()), *self._options),
            )
            for _ in range(self._count)
        ]

    def url(self, stream: str = "", **options: object) -> str:
        """A `redis+cluster://` URL with three of the servers; `stream` names a queue."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:3])
        given = {"stream": stream, **options} if stream else options
        query = "&".join(f"{name}={value}" for name, value in given.items())
        return f"redis+cluster://{hosts}" + (f"?{query}" if query else "")

    def start(self) -> Self:
        """Start all servers at once, join them, and wait until every one of them finds the cluster whole. Another
        program may grab one of the ports first: then all are tried anew."""
        for _ in range(2):
            try:
                return self._start()
            except (RuntimeError, redis.exceptions.ConnectionError):
                self.close()
                self.nodes = self._new_nodes()
        return self._start()

    def _start(self) -> Self:
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(Server.start, self.nodes))
        first = self.nodes[0]
        for position, node in enumerate(self.nodes):
            _do(node, "CLUSTER", "SET-CONFIG-EPOCH", position + 1)
        for node in self.nodes[1:]:
            bus = _bus_port(node)
            _do(first, "CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        for position in range(self._masters):
            low, high = SLOTS * position // self._masters, SLOTS * (position + 1) // self._masters - 1
            _do(self.nodes[position], "CLUSTER", "ADDSLOTSRANGE", low, high)
        _until(lambda: all(len(self._view(node)) == len(self.nodes) for node in self.nodes), "all know each other")
        for position, node in enumerate(self.nodes[self._masters :]):
            _retried(node, "CLUSTER", "REPLICATE", self._id(self.nodes[position % self._masters]))
        self.await_whole()
        return self

    def await_whole(self) -> None:
        """Return once every running server finds that all slots are served, and each replica has its master's data."""
        _until(self._is_whole, "the cluster is whole")

    def close(self) -> None:
        """Stop all servers, and delete their data."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Who is who

    def slot_of(self, key: str) -> int:
        """The slot of a key."""
        slot: int = redis.crc.key_slot(key.encode())
        return slot

    def master_of(self, key: str) -> Server:
        """The running server that has the key's slot now, in its own view and in that of most others."""
        slot = self.slot_of(key)
        votes: dict[int, int] = {}
        for node in self._running():
            port = self._owner_port(node, slot)
            votes[port] = votes.get(port, 0) + 1
        most = max(votes, key=lambda port: votes[port])
        return next(node for node in self.nodes if node.port == most)

    def masters(self) -> list[Server]:
        """The running servers that have slots."""
        return [node for node in self._running() if self._is_master(node)]

    # What goes wrong

    def kill_master(self, key: str) -> Server:
        """Kill the master of a key's slot with SIGKILL; returns it, to be started again."""
        master = self.master_of(key)
        master.kill()
        return master

    def await_failover(self, key: str, old: Server) -> Server:
        """Return the server that has taken over the key's slot from `old`."""

        def taken_over_by() -> set[int]:
            others = [node for node in self._running() if node is not old]
            return {self._owner_port(node, self.slot_of(key)) for node in others}

        _until(lambda: len(ports := taken_over_by()) == 1 and old.port not in ports, f"a failover from {old.port}")
        (port,) = taken_over_by()
        return next(node for node in self.nodes if node.port == port)

    @contextlib.contextmanager
    def frozen(self, node: Server) -> Iterator[None]:
        """One server hangs for the length of a block."""
        with node.frozen():
            yield

    def migrate(self, key: str, target: Server, *, pause: Callable[[], None] = lambda: None) -> None:
        """Move the key's slot to `target`, key by key, as resharding does. `pause` is called while the slot is open,
        and again when half of its first keys have gone."""
        slot, source = self.slot_of(key), self.master_of(key)
        _do(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self._id(source))
        _do(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self._id(target))
        pause()
        has_paused = False
        while keys := _do(source, "CLUSTER", "GETKEYSINSLOT", slot, 20):
            for name in keys[: max(1, len(keys) // 2)]:
                _do(source, "MIGRATE", "127.0.0.1", target.port, name, 0, 5000)
            if not has_paused:
                has_paused = True
                pause()
        for node in (target, source, *self.masters()):
            _do(node, "CLUSTER", "SETSLOT", slot, "NODE", self._id(target))

    # Views

    def _running(self) -> list[Server]:
        return [node for node in self.nodes if node.is_running]

    def _view(self, node: Server) -> list[list[str]]:
        return [line.split() for line in _do(node, "CLUSTER", "NODES").decode().splitlines()]

    def _id(self, node: Server) -> str:
        found: bytes = _do(node, "CLUSTER", "MYID")
        return found.decode()

    def _is_master(self, node: Server) -> bool:
        with contextlib.suppress(redis.exceptions.RedisError):
            return any("myself,master" in row[2] and len(row) > 8 for row in self._view(node))
        return False

    def _owner_port(self, node: Server, slot: int) -> int:
        with contextlib.suppress(redis.exceptions.RedisError):
            for first, last, master, *_ in _do(node, "CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return int(master[1])
        return 0

    def _is_whole(self) -> bool:
        running = self._running()
        try:
            facts = [_do(node, "CLUSTER", "INFO").decode() for node in running]
            replicas = [_do(node, "INFO", "replication").decode() for node in running]
            # Its own nodes alone: a stranger may have grabbed a port of one that is down.
            views = [sorted(row[0] for row in self._view(node)) for node in running]
        except redis.exceptions.RedisError:
            return False
        return (
            all("cluster_state:ok" in text and f"cluster_slots_ok:{SLOTS}" in text for text in facts)
            and all("role:master" in text or "master_link_status:up" in text for text in replicas)
            and all(view == views[0] for view in views)
        )


def _bus_port(node: Server) -> int:
    found: list[bytes] = _do(node, "CONFIG", "GET", "cluster-port")
    return int(found[1])


def _do(node: Server, *command: object) -> Any:
    """One command, over a connection of its own."""
    with redis.Redis(
        protocol=2, socket_timeout=5, retry=Retry(NoBackoff(), 0), unix_socket_path=str(node.socket_path)
    ) as client:
        client.response_callbacks.clear()
        return client.execute_command(*command)


def _retried(node: Server, *command: object) -> None:
    """A command that is refused until gossip has spread."""

    def is_done() -> bool:
        try:
            _do(node, *command)
        except redis.exceptions.ResponseError:
            return False
        return True

    _until(is_done, " ".join(map(str, command)))


def _until(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {READY_WITHIN_S} s in vain until {what}")
        time.sleep(0.02)  # gossip has no event to wait for
