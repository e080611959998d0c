"""One core for the worker, the others for all that only measures it. Linux only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def to_itself(pid: int, *apart: int) -> Iterator[None]:
    """While this is entered the process `pid` runs on a core of its own; the processes `apart`, this one, and what it
    starts meanwhile run on the rest. Does nothing where there is one core only."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        yield
        return
    _keep_on(cores[:1], pid)
    _keep_on(cores[1:], os.getpid(), *apart)
    try:
        yield
    finally:
        _keep_on(cores, os.getpid(), *apart)


def _keep_on(cores: list[int], *pids: int) -> None:
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)
