"""What the engine's side was told of each task: submits, cancels, and what live consumers saw."""

from __future__ import annotations

from msgspec import Struct

from queue_backends import CancelOutcome, Chunk
from tests.faults.mixture import Errand


class Submission(Struct, kw_only=True):
    """An errand, and what became of it from the engine's point of view."""

    errand: Errand
    ids: list[str] = []
    """What each submit returned; none: nobody knows whether the task was accepted."""
    at: float = 0.0
    """When the first of them was returned."""
    cancel: CancelOutcome | None = None
    """What the engine's cancel met."""
    cancel_sent: bool = False

    @property
    def task_id(self) -> str:
        """The task's id; empty if the engine was never told."""
        return self.ids[0] if self.ids else ""


class View(Struct, kw_only=True):
    """What a live consumer saw of one task."""

    chunks: list[Chunk] = []
    ended: bool = False
    problem: str = ""
