"""What a memory does for a run."""

from __future__ import annotations

from typing import Protocol

from queue_backends import Task


class Memory(Protocol):
    """The memory of one role. What goes wrong with it costs the run what it would have remembered, never the run."""

    async def recall(self, task: Task) -> Task:
        """The task, with what there is to remember for it. Raises `MemoryUnavailable`."""
        ...

    async def keep(self, task: Task, output: str) -> None:
        """Remember what a task was answered; the same task is remembered once. Raises `MemoryUnavailable`."""
        ...


class MemoryUnavailable(Exception):
    """The memory cannot be reached, or does not do what it is asked. The message says why."""
