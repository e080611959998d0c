"""Ends a process that was told to end and cannot: somebody swallows cancellations, or blocks a thread for good."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from typing import NoReturn, Self

import structlog

SPARE_S = 10.0
"""Beyond what a drain may take: for connections to be closed, and what was recorded to be sent."""
_HEED_S = 2.0

FAILED = 1
"""Exit code of a process that something was left behind in."""

log = structlog.get_logger(__name__)


class LastResort:
    """Ends this process after a time, from a thread of its own, whatever holds up all others. As a context
    manager, only if that is not left before."""

    def __init__(self) -> None:
        self._end_at: float | None = None
        """By the monotonic clock."""
        self._lock = threading.Lock()
        self._sooner = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._end_at = None
        self._sooner.set()

    def within(self, seconds: float) -> None:
        """The process ends at the latest then; what was said before may only make it sooner."""
        with self._lock:
            end_at, is_first = time.monotonic() + seconds, self._end_at is None
            self._end_at = end_at if self._end_at is None else min(self._end_at, end_at)
        if is_first:
            threading.Thread(target=self._run, name="last resort", daemon=True).start()
        else:
            self._sooner.set()

    def _run(self) -> None:
        while (end_at := self._end_at) is not None and (left_s := end_at - time.monotonic()) > 0:
            self._sooner.wait(left_s)
            self._sooner.clear()
        if end_at is None:
            return
        others = sorted(each.name for each in threading.enumerate() if each is not threading.current_thread())
        log.error("the process does not end by itself and is ended; leases will run out", threads=others[:20])
        end_at_once(FAILED)


def closed_in_time(runner: asyncio.Runner) -> bool:
    """Close the runner; False, and it is not, if tasks swallow the cancellation or a thread of its pool is blocked."""
    loop = runner.get_loop()
    if left := asyncio.all_tasks(loop):
        for task in left:
            task.cancel()
        _, left = loop.run_until_complete(asyncio.wait(left, timeout=_HEED_S))
    if left:
        return False
    pool = loop.create_task(loop.shutdown_default_executor(), name="end of the thread pool")
    loop.run_until_complete(asyncio.wait([pool], timeout=_HEED_S))
    if not pool.done():
        log.error("a thread does not end and is left behind")
        return False
    runner.close()
    return True


def end_at_once(code: int) -> NoReturn:
    """Without waiting for anybody: not for tasks, threads, or what is registered for the interpreter's end."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
