"""What a memory does for a run."""

from __future__ import annotations

from typing import Protocol

from worker.teams.memory.recollection import Recollection
from worker.teams.memory.work import Work


class Memory(Protocol):
    """The memory of one role. What goes wrong with it costs the run what it would have remembered, never the run."""

    async def recall(self, work: Work) -> Recollection:
        """What there is to remember for a piece of work; of that work itself nothing. Raises `MemoryUnavailable`."""
        ...

    async def keep(self, work: Work, answer: str) -> None:
        """Remember what it was answered: once, and the latest answer, however often it is done anew.

        Raises `MemoryUnavailable`.
        """
        ...


class MemoryUnavailable(Exception):
    """The memory cannot be reached, or does not do what it is asked. The message says why, without a secret."""
