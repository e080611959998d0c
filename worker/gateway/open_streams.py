"""The event streams that are being sent, and why one ends before its time: the gateway stops, or its caller's key or
token is no longer good."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from worker.gateway.caller import Caller

LOOK_EVERY_S: Final = 1.0
"""So often the callers of open streams are looked at: once each, however many streams they have."""
_STOPPING: Final = b": the gateway is shutting down, connect again\n\n"
_NOT_GOOD: Final = b": the key or token of this stream is no longer good\n\n"


class OpenStreams:
    """All of one application."""

    def __init__(self, is_good: Callable[[Caller], bool], *, look_every_s: float = LOOK_EVERY_S) -> None:
        """`is_good` says of a caller that was let in whether it would still be."""
        self.is_ending = False
        self._is_good = is_good
        self._look_every_s = look_every_s
        self._of: dict[Caller, set[asyncio.Task[object]]] = {}
        self._goodbyes: dict[asyncio.Task[object], bytes] = {}
        """Streams that were ended from here, and what they say at last."""
        self._empty = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def joined(self, caller: Caller) -> Iterator[None]:
        """The current task sends a stream to a caller."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - the server answers each request in a task
        self._of.setdefault(caller, set()).add(task)
        try:
            if self.is_ending:
                self._end(task, _STOPPING)
            elif self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self._look_every_s, self._look)
            yield
        finally:
            self._leave(caller, task)

    def goodbye(self) -> bytes:
        """What the current task has to say before it ends; empty: it was not ended from here."""
        task = asyncio.current_task()
        return self._goodbyes.get(task, b"") if task is not None else b""

    async def end(self, limit_s: float) -> None:
        """End all, and wait until they have said goodbye."""
        self.is_ending = True
        if not self._of:
            return
        self._empty.clear()
        for tasks in self._of.values():
            for task in tasks:
                self._end(task, _STOPPING)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._empty.wait()

    def _look(self) -> None:
        for caller, tasks in self._of.items():
            if not self._is_good(caller):
                for task in tasks:
                    self._end(task, _NOT_GOOD)
        self._timer = asyncio.get_running_loop().call_later(self._look_every_s, self._look)

    def _end(self, task: asyncio.Task[object], goodbye: bytes) -> None:
        if task not in self._goodbyes:  # once: it is not to be disturbed at its last word
            self._goodbyes[task] = goodbye
            task.cancel()

    def _leave(self, caller: Caller, task: asyncio.Task[object]) -> None:
        self._goodbyes.pop(task, None)
        tasks = self._of[caller]
        tasks.discard(task)
        if not tasks:
            del self._of[caller]
        if not self._of:
            self._empty.set()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
