"""How many bytes of one task's replay stream stand where, so that the oldest can go. Pure.

Only the lease's holder writes, so it can count by itself, and the server has nothing to count. It counts in segments
rather than in chunks: a stream of ten thousand chunks costs its writer a few numbers.
"""

from __future__ import annotations

from collections import deque

SEGMENTS = 16
"""What goes at once is about this part of the cap."""


class ReplayCap:
    """What is kept of one stream, as far as its writer knows. The newest segment is always kept."""

    __slots__ = ("_first_seq", "_limit_bytes", "_open_bytes", "_segments", "_step_bytes", "_total_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._step_bytes = limit_bytes // SEGMENTS
        self._segments: deque[tuple[int, int]] = deque()
        """First `seq` and bytes of each that is complete, oldest first."""
        self._first_seq = 0
        """Of the segment that is being written; it has `_open_bytes`."""
        self._open_bytes = 0
        self._total_bytes = 0

    def found(self, first_seq: int, next_seq: int, size_bytes: int) -> None:
        """Somebody else has written these; how their bytes are spread over them is not known."""
        chunks = next_seq - first_seq
        parts = min(SEGMENTS, chunks)
        for part in range(parts):
            self._segments.append((first_seq + chunks * part // parts, size_bytes // parts))
            self._total_bytes += size_bytes // parts

    def trim_before(self) -> int:
        """Chunks before this `seq` have to go; 0 if none has to."""
        over = self._total_bytes - self._limit_bytes
        if over <= 0:
            return 0
        for first_seq, size_bytes in self._segments:
            if over <= 0:
                return first_seq
            over -= size_bytes
        return self._first_seq if self._open_bytes else self._segments[-1][0]

    def wrote(self, first_seq: int, size_bytes: int) -> None:
        """Chunks were written from `first_seq` on, and those before `trim_before` went in the same step."""
        if self._total_bytes > self._limit_bytes:
            before = self.trim_before()
            while self._segments and self._segments[0][0] < before:
                self._total_bytes -= self._segments.popleft()[1]
        if not self._open_bytes:
            self._first_seq = first_seq
        self._open_bytes += size_bytes
        self._total_bytes += size_bytes
        if self._open_bytes >= self._step_bytes:
            self._segments.append((self._first_seq, self._open_bytes))
            self._open_bytes = 0
