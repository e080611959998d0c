"""Queues of which nothing shall be left: those of one run, in one process."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Temporary(Protocol):
    """A backend whose queue can be given a lifetime as a whole. State that others keep there is not touched."""

    async def keep_for(self, lifetime_s: float) -> None:
        """All keys of the queue that exist now disappear `lifetime_s` from now, unless this is called again; with 0, at
        once. Chunks and idempotency keys have lifetimes of their own."""
        ...
