"""What becomes of a run that failed: tried again, after how long, or given up."""

from __future__ import annotations

import random
from collections.abc import Callable

from msgspec import Struct

from providers import AuthenticationFailed, InvalidRequest, ProviderError, UnknownProvider
from providers.errors import PERMANENT_PREFIX
from queue_backends import QueueError
from worker.errors import AccessDenied, AgentNotFound, AgentUnusable, DeadlineExceeded, Postponed, WaitedTooLong

LONGEST_ERROR_CHARS = 16_000
"""It becomes result, final chunk and dead letter."""
_PERMANENT_MARKS = (" 400 ", " 401 ", " 403 ", " 404 ", " 422 ")
"""ark: a text that contains one of these is a permanent failure."""

_HOPELESS = (AccessDenied, AgentNotFound, AgentUnusable, DeadlineExceeded, QueueError, WaitedTooLong)


class Failure(Struct, frozen=True, kw_only=True):
    """A decision; the worker carries it out."""

    error: str
    retry_in_s: float | None
    """None: no further attempt."""


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """Exponential backoff with full jitter, and a number of attempts."""

    max_retries: int = 3
    base_s: float = 1.0
    most_s: float = 60.0
    longest_wait_s: float = 24 * 3600.0
    """A task that was postponed for so long, without a model call in between, is given up."""

    def decide(
        self, error: Exception, attempt: int, *, jitter: Callable[[float, float], float] = random.uniform
    ) -> Failure:
        """What to do after attempt number `attempt` (from 0) has failed with `error`."""
        text = error_text(error)
        if is_permanent(error, text) or attempt >= self.max_retries:
            return Failure(error=text, retry_in_s=None)
        wait_s = jitter(0, min(self.most_s, self.base_s * 2**attempt))
        if isinstance(error, ProviderError) and error.retry_after_s is not None:
            wait_s = max(wait_s, error.retry_after_s)
        return Failure(error=text, retry_in_s=wait_s)

    def postpone(self, error: Postponed, *, waiting_since: float, now: float, deadline: float | None) -> Failure:
        """What becomes of a task whose next model call cannot be made since `waiting_since`: it comes back when that
        may have changed, at the latest when its time is up. All moments are Unix seconds."""
        ends_at = waiting_since + self.longest_wait_s
        if now >= ends_at:
            said = f"gave up after {now - waiting_since:.0f} s in which no model call could be made ({error})"
            return Failure(error=f"{said}: see to that, or raise SHOAL_MAX_POSTPONED_SECONDS", retry_in_s=None)
        if deadline is not None:
            ends_at = min(ends_at, deadline)
        return Failure(error=error_text(error), retry_in_s=max(min(error.retry_in_s, ends_at - now), 0.0))


def is_permanent(error: Exception, text: str) -> bool:
    """Whether the same task can never succeed."""
    if isinstance(error, UnknownProvider):
        return False  # it may be a process of its own that has just registered, or is about to
    if isinstance(error, ProviderError):
        return not error.retryable
    if isinstance(error, _HOPELESS):
        return True
    return text.startswith(PERMANENT_PREFIX.rstrip(": ")) or any(mark in text for mark in _PERMANENT_MARKS)


def error_text(error: Exception) -> str:
    """The error as results and dead letters show it. ark marks what is not worth trying again."""
    text = str(error) or type(error).__name__
    if len(text) > LONGEST_ERROR_CHARS:
        text = f"{text[:LONGEST_ERROR_CHARS]} [cut: {len(text)} characters]"
    if isinstance(error, InvalidRequest | AuthenticationFailed) and not text.startswith(PERMANENT_PREFIX):
        return PERMANENT_PREFIX + text
    return text
