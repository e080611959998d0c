"""What a call tells of its target, as it ended; pure functions."""

from __future__ import annotations

import enum

from providers import (
    AuthenticationFailed,
    BadResponse,
    ContextTooLong,
    Overloaded,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    StreamBroken,
    Unavailable,
    UnknownProvider,
)
from providers.turn_routing import CallEnd
from queue_backends import CallOutcome, QueueError
from worker.errors import Postponed
from worker.routing.errors import UnfitTarget

_MOST_ERROR_CHARS = 200


class Verdict(enum.Enum):
    """What a call tells of its target."""

    WELL = "well"
    """It has answered; with a refusal, perhaps, or because our request was wrong."""
    ILL = "ill"
    FOR_GOOD = "for good"
    """It will fail in the same way until somebody changes something."""
    RESTS = "rests"
    """It said for how long it wants to hear nothing."""
    UNKNOWN = "unknown"
    """Nothing: the call was not sent, or was ended from outside."""


def verdict_of(end: CallEnd) -> Verdict:
    """What a call tells of its target."""
    error = end.error
    if end.outcome is CallOutcome.COMPLETED:
        return Verdict.WELL
    if end.outcome is not CallOutcome.FAILED or isinstance(error, QueueError):  # a lost lease is not the target's
        return Verdict.UNKNOWN
    if isinstance(error, AuthenticationFailed):
        return Verdict.FOR_GOOD
    if isinstance(error, RateLimited) and error.retry_after_s:
        return Verdict.RESTS
    return Verdict.WELL if isinstance(error, ProviderError) and not error.retryable else Verdict.ILL


_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (Overloaded, "overloaded"),
    (RateLimited, "rate_limited"),
    (Postponed, "rate_limited"),
    (ProviderTimeout, "timeout"),
    (StreamBroken, "stream_broken"),
    (Unavailable, "unavailable"),
    (BadResponse, "bad_response"),
    (AuthenticationFailed, "authentication_failed"),
    (ContextTooLong, "context_too_long"),
    (UnfitTarget, "unfit"),
    (UnknownProvider, "unknown_provider"),
)


def reason_of(error: Exception) -> str:
    """An error in one word, for metrics and chunks."""
    return next((word for kind, word in _REASONS if isinstance(error, kind)), "failed")


def hedge_outcome(end: CallEnd) -> str:
    """What became of a second call: `won`, `lost` or `failed`."""
    if end.outcome is CallOutcome.COMPLETED:
        return "won"
    return "lost" if end.outcome in (CallOutcome.CANCELLED, None) else "failed"


def one_line(error: BaseException | None) -> str:
    """An error's text for people, in one line and not long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MOST_ERROR_CHARS else f"{text[:_MOST_ERROR_CHARS]}…"
