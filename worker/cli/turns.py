"""Which chunks to show: a turn that starts over replaces what was shown of it."""

from __future__ import annotations

import enum

from queue_backends import Chunk


class Verdict(enum.Enum):
    """What to do with a chunk."""

    SHOW = "show"
    RESTART = "restart"
    """First drop what was shown of this turn, then show it."""
    SKIP = "skip"
    """It is a leftover of an attempt that was given up."""


class Turns:
    """Follows a task's chunks in order. The same turn with a higher `attempt` means that the turn starts over."""

    def __init__(self) -> None:
        self._turn = -1
        self._attempt = 0
        self._has_shown = False

    def judge(self, chunk: Chunk) -> Verdict:
        """What to do with the next chunk. The final chunk belongs to no turn and is always shown."""
        if chunk.is_final:
            return Verdict.SHOW
        if chunk.turn < self._turn or (chunk.turn == self._turn and chunk.attempt < self._attempt):
            return Verdict.SKIP
        is_same = chunk.turn == self._turn and chunk.attempt == self._attempt
        restarts = chunk.turn == self._turn and chunk.attempt > self._attempt and self._has_shown
        says_something = bool(chunk.content) or "route" not in chunk.metadata
        self._turn, self._attempt = chunk.turn, chunk.attempt
        self._has_shown = says_something or (is_same and self._has_shown)
        return Verdict.RESTART if restarts else Verdict.SHOW
