"""When to repeat a request, and how long to wait before: decisions as values, no waiting here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC
from email.utils import parsedate_to_datetime

from msgspec import Struct

from providers.vendor_limits import duration_s, until

is_gated: ContextVar[bool] = ContextVar("rate_limits_are_gated", default=False)
"""Whether somebody above decides when a call that met a rate limit (429) is sent again: the gate of a fleet-wide limit
sets it for the calls that it lets through. What the whole fleet had better not send is then repeated by no request."""


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """Exponential backoff with full jitter; a server's own wish counts more."""

    max_retries: int = 3
    base_s: float = 0.5
    cap_s: float = 20.0
    longest_wait_s: float = 60.0
    """A server that asks for a longer wait is not waited for: the error goes up and carries `retry_after_s`."""

    def wait_s(self, retries_done: int, retry_after_s: float | None, random: Callable[[], float]) -> float | None:
        """Seconds to wait before the next try; None: give up. `random` gives numbers in [0, 1)."""
        if retries_done >= self.max_retries:
            return None
        jitter_s = random() * min(self.cap_s, self.base_s * 2.0**retries_done)
        if retry_after_s is None:
            return jitter_s
        if retry_after_s > self.longest_wait_s:
            return None
        # Never earlier than asked, and not all clients in the same instant.
        return retry_after_s + min(jitter_s, self.base_s)


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """How long the server wants us to wait, in seconds from `now` (Unix seconds); None if it does not say.

    Reads, in this order: `retry-after-ms`; `Retry-After` as seconds or as an HTTP date (RFC 9110, 10.2.3); the reset
    times of Anthropic (`anthropic-ratelimit-*-reset`, RFC 3339) and OpenAI (`x-ratelimit-reset-*`, such as `6m0s`),
    of those limits that have nothing remaining. `headers` has lower-case names.
    """
    explicit = _milliseconds(headers.get("retry-after-ms", ""))
    if explicit is None:
        explicit = _seconds_or_date(headers.get("retry-after", ""), now)
    if explicit is not None:
        return max(explicit, 0.0)
    waits = [wait for name in headers if (wait := _limit_wait_s(headers, name, now)) is not None]
    return max(max(waits), 0.0) if waits else None


def _milliseconds(text: str) -> float | None:
    try:
        return _finite(float(text) / 1000.0)
    except ValueError:
        return None


def _seconds_or_date(text: str, now: float) -> float | None:
    try:
        return _finite(float(text))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp() - now


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _limit_wait_s(headers: Mapping[str, str], name: str, now: float) -> float | None:
    if name.startswith("anthropic-ratelimit-") and name.endswith("-reset"):
        remaining = headers.get(name.removesuffix("-reset") + "-remaining")
        return until(headers[name], now) if remaining == "0" else None
    if name.startswith("x-ratelimit-reset-"):
        remaining = headers.get(name.replace("-reset-", "-remaining-"))
        return duration_s(headers[name]) if remaining == "0" else None
    return None
