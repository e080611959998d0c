"""Whether a broker answers, as one process sees it: said once when it goes away and once when it is back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

QUIET_S = 3.0
"""A server that refuses some commands and answers others counts as back after so long without a refusal. Whoever
tries again does so more often."""

log = structlog.get_logger(__name__)


class Availability:
    """One broker's state, noted by whatever talks to it, so that a thousand failed commands are one line in the log.

    What began before the broker went away or came back tells nothing about now, however late its outcome is known: of
    two hundred attempts some fail after the first has succeeded again.

    It also knows of silences: nobody could renew a lease while the broker was away, so what has run out then tells
    nothing about its holder.
    """

    def __init__(self, *, long_silence_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._long_silence_s = long_silence_s
        self._clock = clock
        self._away_since: float | None = None
        self._back_at = float("-inf")
        self._refused_at: float | None = None
        self._answered_at = clock()
        self._silence_ended_at = float("-inf")
        self._lock = threading.Lock()  # leases are renewed from a thread

    @property
    def is_away(self) -> bool:
        """Whether the last that was heard of it is a failure."""
        return self._away_since is not None

    def now(self) -> float:
        """The moment that `failed` and `answered` want to know as `began_at`."""
        return self._clock()

    def failed(self, error: Exception, *, began_at: float | None = None, answers: bool = False) -> None:
        """It cannot be used. With `answers`, it said so itself: other commands may well succeed meanwhile."""
        now = self._clock()
        with self._lock:
            if answers:
                self._refused_at = now
            if self._away_since is not None or (began_at is not None and began_at <= self._back_at):
                return
            self._away_since = now
        log.warning("the broker is away, trying until it is back", error=str(error))

    def answered(self, *, began_at: float | None = None) -> None:
        """It has done what was asked of it."""
        now = self._clock()
        if now - self._answered_at > self._long_silence_s:
            self._silence_ended_at = now
        self._answered_at = now
        if self._away_since is not None:
            self._back(now, began_at)

    def _back(self, now: float, began_at: float | None) -> None:
        with self._lock:
            since = self._away_since
            if since is None or (began_at is not None and began_at <= since):
                return
            if self._refused_at is not None and now - self._refused_at < QUIET_S:
                return
            self._away_since = self._refused_at = None
            self._back_at = now
        log.info("the broker is back", away_s=round(now - since, 1))

    def started(self, ago_s: float) -> None:
        """The broker itself has started so long ago: before, there was silence."""
        self._silence_ended_at = max(self._silence_ended_at, self._clock() - ago_s)

    def since_silence_s(self) -> float:
        """How long ago the last long silence ended; infinite if there was none."""
        return self._clock() - self._silence_ended_at
