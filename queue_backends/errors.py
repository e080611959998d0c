"""What can go wrong with a queue, as one tree. The families say what the caller does next.

QueueError
├── BackendUnavailable      wait and try again: the server is away, loading, out of memory or read-only
├── QueueFull               wait: the queue has reached its `max_depth`
├── LeaseLost               stop at once and write nothing: somebody else owns the task now
├── TaskNotFound            there is no such task, or it has expired
├── WaitTimeout             the result did not come in time
├── ReplayTrimmed           the chunks asked for are gone from the replay stream
├── InvalidTask             give up on this input
├── ChunkTooLarge           split the chunk: nothing of that call was written
├── UnknownBackend          fix the URL, or register the backend
└── BackendMisconfigured    fix the set-up: wrong URL, server too old, permission missing
"""

from __future__ import annotations


class QueueError(Exception):
    """Root of everything that a queue backend raises."""


class BackendUnavailable(QueueError):
    """The broker cannot be used right now. What was not confirmed has an unknown outcome; trying again is right."""


class QueueFull(QueueError):
    """The queue has reached its `max_depth`; nothing was added. Try again later."""


class LeaseLost(QueueError):
    """The delivery is no longer the caller's. Nothing was written; the run must stop."""


class TaskNotFound(QueueError):
    """No task of that id is waiting, running or kept."""


class WaitTimeout(QueueError):
    """The result was not there in time. The task itself goes on."""


class ReplayTrimmed(QueueError):
    """The chunks from `after_seq` on are no longer kept; the oldest one kept is `first_seq`."""

    def __init__(self, task_id: str, first_seq: int) -> None:
        super().__init__(
            f"chunks of task {task_id} before seq {first_seq} are no longer kept: "
            f"subscribe with after_seq={first_seq - 1}, or raise SHOAL_CHUNK_LIMIT and SHOAL_CHUNK_BYTES"
        )
        self.task_id = task_id
        self.first_seq = first_seq


class InvalidTask(QueueError):
    """The input cannot be a task. Trying again cannot help."""


class ChunkTooLarge(QueueError):
    """A chunk is longer than any backend takes. Trying again cannot help."""


class UnknownBackend(QueueError):
    """The URL's scheme names no backend that is installed."""


class BackendMisconfigured(QueueError):
    """The URL, the server's version or its permissions do not allow the work. The message says what to change."""
