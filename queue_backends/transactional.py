"""Submitting inside the caller's own database transaction: for queues that live in the same database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from queue_backends.messages import Task


@runtime_checkable
class TransactionalQueue(Protocol):
    """A `TaskQueue` that can add tasks through a connection that is the caller's: the tasks exist if and only if the
    caller's transaction is committed, and workers are woken by that commit. Nothing is committed here."""

    async def submit_in(self, connection: Any, tasks: Sequence[Task], *, run_at: float | None = None) -> list[str]:
        """Add tasks as part of the transaction that is open on `connection`; ids in the order of `tasks`.

        Raises `InvalidTask` or `QueueFull`, which leave the transaction as it was, and `BackendMisconfigured` for a
        connection that it cannot use.
        """
        ...
