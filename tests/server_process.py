"""What all servers that tests start have in common: a folder, a process, and ways to end, hang and restart it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self


def free_port() -> int:
    """A loopback TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess(ABC):
    """One server process with a data folder of its own; it can be killed, frozen, and started again on the same data
    and the same address."""

    start_within_s: ClassVar[float] = 30.0
    end_within_s: ClassVar[float] = 10.0
    look_every_s: ClassVar[float] = 0.005

    def __init__(self, name: object, *, within: str | None = None) -> None:
        self._name = name
        self._folder = tempfile.TemporaryDirectory(prefix="shoal-test-", dir=within, ignore_cleanup_errors=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._address_is_known = False
        self.folder = Path(self._folder.name)
        self.port = free_port()

    @abstractmethod
    def spawn(self) -> None:
        """Start it by `_launch`, and do not wait."""

    @abstractmethod
    def _takes_clients(self) -> bool:
        """Whether it answers at this moment."""

    @property
    def pid(self) -> int:
        """Process id of the running server; of several processes, the first one's."""
        return self._running.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped since."""
        return self._process is not None

    @property
    def log(self) -> str:
        """What the server has written so far."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> Self:
        """Start and wait until it has loaded its data and answers. Another program may grab the port first: then the
        next free one is tried, unless an earlier start has already given the address away."""
        for _ in range(5):
            self.spawn()
            if self.answers():
                self._address_is_known = True
                return self
            if self._address_is_known or "in use" not in self.log:
                break
            self.port = free_port()
        raise RuntimeError(f"{self._name} did not start:\n{self.log[-2000:]}")

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

    def answers(self) -> bool:
        """Wait until it answers; says no if it ends before, or does not answer in time (then it is killed)."""
        deadline = time.monotonic() + self.start_within_s
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                self._process = None
                return False
            if self._takes_clients():
                return True
            time.sleep(self.look_every_s)  # another process' start has no event to wait for
        self.kill()
        return False

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the server is not running: call start() first")
        return self._process

    def _launch(self, command: Sequence[str], **options: Any) -> None:
        """Run the command, with its output in the log. `options` are those of `subprocess.Popen`."""
        if self._process is not None:
            raise RuntimeError(f"the server already runs as process {self._process.pid}")
        with (self.folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **options
            )

    def _signal(self, number: signal.Signals) -> None:
        self._running.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if number is signal.SIGKILL:
            self._signal(number)
        else:
            self._signal(signal.SIGCONT)  # a frozen process would not see SIGTERM
            self._running.send_signal(number)
        process, self._process = self._process, None
        try:
            process.wait(timeout=self.end_within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=self.end_within_s)
