"""A master, its replicas and the sentinels that watch them: real processes on loopback ports, for tests of failover."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

import redis

from tests.server_process import ServerProcess
from tests.servers import Server

MASTER = "shoal-master"
DOWN_AFTER_MS = 1000
WITHIN_S = 60.0
"""A sentinel that was not scheduled for long takes its time before it judges again."""

T = TypeVar("T")


class Sentinel(ServerProcess):
    """One sentinel process. It is told to look and to talk more often than sentinels usually do."""

    def __init__(self, program: Path, master_port: int, *, password: str = "", lines: Sequence[str] = ()) -> None:
        super().__init__("the sentinel")
        self._program = program
        self._master_port = master_port
        self._password = password
        self._lines = tuple(lines)

    def ask(self, *command: str | int) -> Any:
        """Its answer to a command."""
        with self._client() as client:
            return client.execute_command(*command)

    def start(self) -> Self:
        """Start, and wait until it answers and is in a hurry."""
        super().start()
        self._hurry()
        return self

    def spawn(self) -> None:
        """Start it, and do not wait."""
        lines = [
            *self._lines,
            f"port {self.port}",
            "bind 127.0.0.1",
            f'dir "{self.folder}"',
            f"sentinel monitor {MASTER} 127.0.0.1 {self._master_port} 2",
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {MASTER} 5000",
        ]
        if self._password:
            lines += [f"requirepass {self._password}", f"sentinel sentinel-pass {self._password}"]
        config = self.folder / "sentinel.conf"
        config.write_text("\n".join(lines) + "\n")
        self._launch([str(self._program), str(config), "--sentinel"])

    def _client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=self._password or None, socket_timeout=5, decode_responses=True)

    def _takes_clients(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self.ask("PING"))
        return False

    def _hurry(self) -> None:
        """Look for peers and replicas often; and forgive a slow machine that it was not scheduled for seconds."""
        often = ("info-period", 200, "ping-period", 200, "ask-period", 200, "publish-period", 200)
        self.ask("SENTINEL", "DEBUG", *often, "tilt-trigger", 30_000, "tilt-period", 1000)


class SentinelServers:
    """One master, replicas and three sentinels. Use as a context manager: at its begin all know each other."""

    def __init__(
        self,
        program: Path,
        *,
        replicas: int = 1,
        password: str = "",
        sentinels: int = 3,
        options: Sequence[str] = (),
    ) -> None:
        self._program = program
        self._password = password
        self._replica_count = replicas
        self._sentinel_count = sentinels
        self._options = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", *options)
        self.servers: list[Server] = []
        self.sentinels: list[Sentinel] = []

    @property
    def sentinel_hosts(self) -> str:
        """The sentinels as a URL has them."""
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    def url(self, stream: str = "", *, name: str = MASTER, **query: str) -> str:
        """A `redis+sentinel://` URL; `stream` names a queue."""
        if self._password:
            query = {"sentinel_password": self._password, **query}
        if stream:
            query = {"stream": stream, **query}
        return f"redis+sentinel://{self.sentinel_hosts}/{name}/0" + (f"?{urlencode(query)}" if query else "")

    @property
    def master(self) -> Server:
        """The server that the sentinels call the master."""
        for sentinel in self.sentinels:
            with contextlib.suppress(redis.RedisError):
                _, port = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
                return next(server for server in self.servers if server.port == int(port))
        raise RuntimeError("no sentinel answers")

    def switched(self, former: Server) -> Server:
        """Wait until all sentinels that live have agreed on another master, and it is one; return it."""

        def new_master() -> Server | None:
            ports = set()
            for sentinel in self.sentinels:
                with contextlib.suppress(redis.RedisError):
                    ports.add(int(sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)[1]))
            if len(ports) != 1 or ports == {former.port}:
                return None
            (server,) = (server for server in self.servers if server.port in ports)
            return server if role_of(server) == "master" else None

        return self._until(new_master)

    def follows(self, server: Server) -> None:
        """Wait until a server is a replica that is connected to the master."""
        self._until(lambda: role_of(server) == "slave" and _replication(server)["master_link_status"] == "up")

    def replicated(self, replicas: int = 1) -> None:
        """Wait until so many replicas have all that the master has."""
        self._until(lambda: self._confirm(replicas))

    def _confirm(self, replicas: int) -> bool:
        with _client(self.master) as client:
            return int(client.execute_command("WAIT", replicas, 1000)) >= replicas

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def _start(self) -> None:
        master = self._add_server()
        for _ in range(self._replica_count):
            self._add_server("--replicaof", "127.0.0.1", str(master.port))
        for _ in range(self._sentinel_count):
            sentinel = Sentinel(self._program, master.port, password=self._password)
            self.sentinels.append(sentinel)
            sentinel.start()
        for replica in self.servers[1:]:
            self.follows(replica)
        for sentinel in self.sentinels:
            self._until(lambda sentinel=sentinel: self._knows_all(sentinel))  # type: ignore[misc]  # bound at once

    def _add_server(self, *options: str) -> Server:
        server = Server(self._program, options=[*self._options, *options])
        self.servers.append(server)
        return server.start()

    def _knows_all(self, sentinel: Sentinel) -> bool:
        facts = sentinel.ask("SENTINEL", "MASTER", MASTER)
        found = facts if isinstance(facts, dict) else dict(zip(facts[::2], facts[1::2], strict=True))
        peers, replicas = int(found["num-other-sentinels"]), int(found["num-slaves"])
        return peers == self._sentinel_count - 1 and replicas == self._replica_count

    def _until(self, check: Callable[[], T | None]) -> T:
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            with contextlib.suppress(redis.RedisError):
                if found := check():
                    return found
            time.sleep(0.02)  # sentinels announce some of this, and not all of it
        logs = "\n".join(sentinel.log[-1500:] for sentinel in self.sentinels)
        raise AssertionError(f"it did not come to that within {WITHIN_S} s; the sentinels say:\n{logs}")

    def close(self) -> None:
        """End all processes, whatever their state."""
        for sentinel in self.sentinels:
            sentinel.close()
        for server in self.servers:
            server.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def role_of(server: Server) -> str:
    """`master` or `slave`, as the server itself says."""
    return str(_replication(server)["role"])


def _replication(server: Server) -> dict[str, Any]:
    with _client(server) as client:
        return dict(client.info("replication"))


@contextlib.contextmanager
def _client(server: Server) -> Iterator[redis.Redis]:
    client = redis.Redis(port=server.port, socket_timeout=5, decode_responses=True)
    try:
        yield client
    finally:
        client.close()
