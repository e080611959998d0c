"""Real `shoal worker` processes for end-to-end tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

EXIT_LIMIT_S = 30.0


class WorkerProcess:
    """One `shoal worker`."""

    def __init__(self, config: Path, queue_url: str, environ: Mapping[str, str]) -> None:
        self.log = config.with_suffix(f".{time.monotonic_ns()}.log")
        command = [sys.executable, "-m", "worker.cli", "worker", "--queue", queue_url]
        environment = {**os.environ, "SHOAL_CONFIG": str(config), **environ}
        with self.log.open("wb") as out:
            self._process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit code."""
        return self._process.wait(EXIT_LIMIT_S)

    def close(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(EXIT_LIMIT_S)


@contextlib.contextmanager
def workers(
    count: int, folder: Path, queue_url: str, settings: Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> Iterator[list[WorkerProcess]]:
    """`count` processes that share one configuration."""
    config = folder / "shoal.yaml"
    config.write_text(json.dumps({"health_port": 0, "log_level": "warning", **settings}))
    running = [WorkerProcess(config, queue_url, environ or {}) for _ in range(count)]
    try:
        yield running
    finally:
        for process in running:
            process.signal(signal.SIGTERM)
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait()
            process.close()
