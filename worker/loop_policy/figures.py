"""What the loop policies of a worker came to, counted."""

from __future__ import annotations


class Figures:
    """Counters by what was done, and by what has failed."""

    __slots__ = ("done", "failures")

    def __init__(self) -> None:
        self.done: dict[str, int] = {}
        """`skipped`, `recalled`, `stored`, `compressed`, `sandboxed`, `consulted` -> how often."""
        self.failures: dict[str, int] = {}
        """The part -> how often a run went on without it."""

    def did(self, what: str) -> None:
        """Count something that was done."""
        self.done[what] = self.done.get(what, 0) + 1

    def failed(self, part: str) -> None:
        """Count something that went wrong."""
        self.failures[part] = self.failures.get(part, 0) + 1
