"""Where notifications wait for one listener."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

MOST_ITEMS = 128
"""An item is at most one announcement, so that this is about a megabyte."""


class Inbox:
    """News for one listener. A full one forgets them all and says so: the listener reads again from where it knows, so
    that a slow one costs a bounded amount of memory and misses nothing."""

    def __init__(self) -> None:
        self._items: deque[object] = deque()
        self._filled = asyncio.Event()
        self._gap = False
        self.closed = False
        """The backend was closed: nothing more will come."""

    def put(self, item: object) -> None:
        """Add one; None says that some may be missing."""
        if item is None or len(self._items) >= MOST_ITEMS:
            self._items.clear()
            self._gap = True
        else:
            self._items.append(item)
        self._filled.set()

    def close(self) -> None:
        """Wake the listener for good."""
        self.closed = True
        self._filled.set()

    async def get(self, timeout_s: float) -> object:
        """The next one; None if some may be missing, or if none came in time."""
        if not self._filled.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._filled.wait()
        item = None
        if self._gap:
            self._gap = False
        elif self._items:
            item = self._items.popleft()
        if not self._items and not self._gap and not self.closed:
            self._filled.clear()
        return item
