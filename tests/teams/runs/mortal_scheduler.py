"""Real scheduler processes that kill themselves: `python -m tests.teams.runs.mortal_scheduler URL`.

Each line on stdin, `RUN N`, makes one: it drives the run and gets SIGKILL from itself just before its n-th write. The
answer on stdout is `killed`, or `done` if the run came to its end before that. They are forked from one process that
has loaded everything, so that each takes milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from queue_backends import Backend, open_backend
from worker.teams.driver import Driver
from worker.teams.runs import Runs

WRITES = frozenset({"set", "compare_and_set", "append_once", "submit", "delete", "cancel"})


class Deadly:
    """Passes everything on; counts writes."""

    def __init__(self, inner: Any, left: list[int]) -> None:
        self._inner = inner
        self._left = left

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in WRITES:
            return found

        async def write(*args: Any, **kwargs: Any) -> Any:
            if "hello" in str(args[0]):
                return await found(*args, **kwargs)
            self._left[0] -= 1
            if self._left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return await found(*args, **kwargs)

        return write


async def drive(url: str, run_id: str, count: int) -> None:
    """Drive a run until the n-th write."""
    left = [count]
    async with await open_backend(url) as backend:
        mortal = Backend(Deadly(backend.queue, left), backend.chunks, Deadly(backend.state, left))
        await Driver(mortal, Runs(mortal.state)).drive(run_id)


async def connect(url: str) -> None:
    """Load all that a connection needs."""
    async with await open_backend(url) as backend:
        await backend.queue.ping()


def main() -> None:
    """One child after the other, as stdin says."""
    asyncio.run(connect(sys.argv[1]))
    for line in sys.stdin:
        run_id, count = line.split()
        if (child := os.fork()) == 0:
            asyncio.run(drive(sys.argv[1], run_id, int(count)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print("killed" if killed else "done" if status == 0 else f"failed {status}", flush=True)


if __name__ == "__main__":
    main()
