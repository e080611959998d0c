"""Drivers as child processes: started, listened to, measured from outside, stopped. Linux only."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parents[2]
COMPILED = "SHOAL_BENCH_COMPILED"
"""In the environment: a folder with compiled packages that drivers run instead of the checkout's (`builds.prepare`)."""
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") / 1024


class DriverFailed(Exception):
    """A driver ended, or was silent for too long; the message has its last lines."""


def is_compiled() -> bool:
    """Whether drivers run compiled packages."""
    return bool(os.environ.get(COMPILED))


def _packages(environment: Mapping[str, str]) -> str:
    """Where a driver finds Shoal, and itself."""
    return os.pathsep.join(filter(None, [environment.get(COMPILED), str(REPOSITORY)]))


class Program:
    """One driver. Its standard output is read line by line; its errors are kept for the message if it fails."""

    def __init__(self, python: Path | str, module: str, arguments: Sequence[str], **environment: str) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # __exit__ closes it
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.name = f"{module.rpartition('.')[2]} {arguments[0] if arguments else ''}".strip()
        inherited = {**os.environ, **environment}
        self._process = subprocess.Popen(
            # -P keeps the driver's folder off the path: a driver named after its library must not hide it
            [str(python), "-P", "-m", module, *arguments],
            env={**inherited, "PYTHONPATH": _packages(inherited), "PYTHONUNBUFFERED": "1"},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def line(self, prefix: str, within_s: float) -> str:
        """The rest of the next line that begins with `prefix`; other lines are dropped. Raises `DriverFailed`."""
        return self.collect(prefix, within_s)[1]

    def collect(self, end: str, within_s: float, *, keep: str = "\0") -> tuple[list[str], str]:
        """Lines that begin with `keep`, up to the one that begins with `end`; prefixes removed."""
        deadline, kept = time.monotonic() + within_s, list[str]()
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise DriverFailed(
                    f"{self.name}: no line {end!r} within {within_s:.0f} s{self._last_errors()}"
                ) from None
            if line is None:
                raise DriverFailed(f"{self.name}: ended before a line {end!r}{self._last_errors()}")
            if line.startswith(end):
                return kept, line[len(end) :].strip()
            if line.startswith(keep):
                kept.append(line[len(keep) :].strip())

    def pending(self, prefix: str) -> list[str]:
        """What came so far of lines that begin with `prefix`, without waiting."""
        found: list[str] = []
        while not self._lines.empty():
            line = self._lines.get()
            if line is not None and line.startswith(prefix):
                found.append(line[len(prefix) :].strip())
        return found

    def figures(self, within_s: float) -> dict[str, Any]:
        """The JSON of the driver's `DONE` line."""
        figures: dict[str, Any] = json.loads(self.line("DONE", within_s))
        return figures

    def cpu_s(self) -> float:
        """User and system time of all its threads so far, in seconds."""
        return time.clock_gettime((~self.pid << 3) | 2)  # Linux: the CPU clock of another process

    def resident_kib(self) -> float:
        """Memory that it holds now, in KiB."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE_KIB

    def alive(self) -> bool:
        return self._process.poll() is None

    def _last_errors(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()[-4:]
        return ": " + " / ".join(lines) if lines else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Killed, not asked: what a worker does on its way out is not part of any figure.
        if self.alive():
            self._process.send_signal(signal.SIGKILL)
        self._process.wait(timeout=10)
        self._reader.join(timeout=10)
        if self._process.stdout:
            self._process.stdout.close()
        self._errors.close()
