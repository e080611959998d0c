"""Errors on their way: from a provider's exception to a text that any engine understands, and back. Pure.

The protocol knows a text and nothing else. Between two Shoal processes the class comes along in `result_json`; from
anybody else it is guessed from gRPC's status and from what such texts usually say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from providers import errors
from providers.errors import (
    AuthenticationFailed,
    BadResponse,
    ContextTooLong,
    InvalidRequest,
    Overloaded,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    Unavailable,
)
from providers.remote.payload import Flat, usage_of, whole_number
from queue_backends import TokenUsage

_CLASSES: dict[str, type[ProviderError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, ProviderError)
}
_SAYS: tuple[tuple[re.Pattern[str], type[ProviderError]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind)
    for pattern, kind in (
        (r"context (length|window)|too many tokens|prompt is too long", ContextTooLong),
        (r"\b429\b|rate.?limit|too many requests|quota", RateLimited),
        (r"\b529\b|\b503\b|overloaded", Overloaded),
        (r"\b40[13]\b|unauthori[sz]ed|not configured|api.?key|permission denied|forbidden", AuthenticationFailed),
        (r"\b4(00|04|13|22)\b|invalid params|invalid request|unknown model|unsupported", InvalidRequest),
        (r"timed? ?out|deadline", ProviderTimeout),
    )
)


_LONGEST_WAIT_S = 24 * 3600.0
"""A peer that wants us to wait for longer is not believed."""


class CallFailed(Exception):
    """A call over gRPC has failed. `status` is gRPC's name of how, such as `UNAVAILABLE`."""

    def __init__(self, status: str, details: str) -> None:
        super().__init__(f"{status}: {details}" if details else status)
        self.status = status
        self.details = details

    @property
    def is_unimplemented(self) -> bool:
        """The peer has no such method."""
        return self.status == "UNIMPLEMENTED"

    @property
    def is_other_dialect(self) -> bool:
        """The peer may not have understood how we speak, which the other dialect would mend."""
        said = self.details.lower()
        signs = ("unmarshal", "content-type", "codec", "deserializ", "proto")
        return self.status in {"INTERNAL", "UNKNOWN"} and any(sign in said for sign in signs)


def described(error: ProviderError) -> Flat:
    """What another Shoal process needs to raise the same error."""
    told = {"error_class": type(error).__name__}
    if error.status is not None:
        told["error_status"] = str(error.status)
    if error.retry_after_s is not None:
        told["retry_after_s"] = f"{error.retry_after_s:g}"
    if error.usage is not None:
        for name in error.usage.__struct_fields__:
            if (count := getattr(error.usage, name)) is not None:
                told[name] = str(count)
    return told


def error_of(text: str, told: Mapping[str, str], provider: str) -> ProviderError:
    """The error of an answer that is none: exactly, if a Shoal process described it, else as its text suggests."""
    kind = _CLASSES.get(told.get("error_class", ""))
    if kind is None:
        kind = next((kind for pattern, kind in _SAYS if pattern.search(text)), Unavailable)
    usage = usage_of(told)
    return kind(
        text or f"{provider}: the plugin failed and did not say why",
        provider=provider,
        status=whole_number(told.get("error_status", "")),
        retry_after_s=_seconds(told.get("retry_after_s", "")),
        usage=usage if usage != TokenUsage() else None,
    )


def _seconds(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if 0 <= found <= _LONGEST_WAIT_S else None


_STATUSES: dict[str, type[ProviderError]] = {
    "UNAVAILABLE": Unavailable,
    "ABORTED": Unavailable,
    "CANCELLED": Unavailable,
    "DEADLINE_EXCEEDED": ProviderTimeout,
    "INVALID_ARGUMENT": InvalidRequest,
    "FAILED_PRECONDITION": InvalidRequest,
    "OUT_OF_RANGE": InvalidRequest,
    "NOT_FOUND": InvalidRequest,
    "UNIMPLEMENTED": InvalidRequest,
    "PERMISSION_DENIED": AuthenticationFailed,
    "UNAUTHENTICATED": AuthenticationFailed,
    "RESOURCE_EXHAUSTED": RateLimited,
    "DATA_LOSS": BadResponse,
}


def error_of_call(failed: CallFailed, provider: str) -> ProviderError:
    """The error of a call that did not get through, or whose plugin raised."""
    text = f"{provider}: {failed.details or 'the call failed'} ({failed.status})"
    kind = _STATUSES.get(failed.status)
    if failed.status == "RESOURCE_EXHAUSTED" and "larger than max" in failed.details.lower():
        kind = InvalidRequest  # a message over the peer's size limit stays over it
    if kind is None:  # UNKNOWN and INTERNAL: what a plugin raised
        return error_of(text, {}, provider)
    return kind(text, provider=provider)
