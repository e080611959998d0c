"""From an HTTP answer, or an error object inside a stream, to the error tree of `providers.errors`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote_plus

import msgspec

from providers.calls import Call
from providers.content_filter import filtered_categories
from providers.decoding import UNREADABLE
from providers.errors import (
    AuthenticationFailed,
    BadResponse,
    ContextTooLong,
    InvalidRequest,
    Overloaded,
    ProviderError,
    RateLimited,
    Refused,
    StreamBroken,
    Unavailable,
)
from providers.vendor_limits import VendorLimits, duration_s

_EXCERPT_CHARS = 500

_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie|identity", re.IGNORECASE)

_KEY_LIKE = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|key|pplx)[-_][\w\-*.]{8,}|\bAIza[\w-]{10,}|\bya29\.[\w.-]{10,}|\bBearer\s+\S+|\bSignature=\w{16,}"
)

_TOO_LONG = re.compile(
    r"context[ _-]?(?:length|window|size)|prompt is too long|maximum context|exceed_context|input (?:is )?too long"
    r"|too many (?:input )?tokens|input token count .* exceeds|exceeds? context limit"
    r"|input tokens exceeded|reduce the length of the messages",
    re.IGNORECASE,
)

_BAD_KEY = re.compile(r"API key not valid|API key expired|API_KEY_INVALID", re.IGNORECASE)

_NO_MONEY = re.compile(r"insufficient_quota|billing_error|billing_not_active|credit balance is too low", re.IGNORECASE)


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """What an error object says, whatever the vendor calls the fields."""

    message: str = ""
    kind: str = ""
    """The vendor's own word, such as `overloaded_error` or `context_length_exceeded`."""
    status: int | None = None
    retry_after_s: float | None = None
    """How long to wait, where the body says so (Google's `RetryInfo`)."""

    @property
    def text(self) -> str:
        """Kind and message in one line."""
        return ": ".join(part for part in (self.kind, self.message) if part)


def read_error_body(body: bytes) -> ErrorBody:
    """Find the message in an error's body: JSON of any vendor's form, or the text of a page."""
    try:
        return error_body(msgspec.json.decode(body))
    except UNREADABLE:
        return ErrorBody(message=_page_text(body))


def error_body(value: Any) -> ErrorBody:
    """The same for JSON that is decoded already. Gemini wraps its object in a list."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, str):
        return ErrorBody(message=value)
    if not isinstance(value, dict):
        return ErrorBody()
    inner = value.get("error")
    if isinstance(inner, dict | list):
        return error_body(inner)
    if isinstance(inner, str):
        more = value.get("error_description")  # OAuth, RFC 6749, 5.2
        return ErrorBody(message=f"{inner}: {more}" if isinstance(more, str) and more else inner)
    message = next((value[name] for name in ("message", "Message", "detail", "msg") if value.get(name)), "")
    # Azure: what its content filter found.
    if isinstance(message, str) and (
        found := filtered_categories([value.get("innererror"), value.get("content_filters")])
    ):
        message = f"{message} ({found})"
    words = [value[name] for name in ("type", "code", "status") if isinstance(value.get(name), str)]
    code = value.get("code")
    return ErrorBody(
        message=message if isinstance(message, str) else msgspec.json.encode(message).decode(),
        kind="/".join(dict.fromkeys(word for word in words if word)),
        status=code if isinstance(code, int) and 400 <= code <= 599 else None,
        retry_after_s=_retry_info_s(value.get("details")),
    )


def _retry_info_s(details: Any) -> float | None:
    """The delay of a `google.rpc.RetryInfo` among an error's details, such as `34.07s`."""
    if not isinstance(details, list):
        return None
    delays = [detail.get("retryDelay") for detail in details if isinstance(detail, dict)]
    return next((duration_s(delay) for delay in delays if isinstance(delay, str)), None)


def error_for(
    provider: str,
    status: int | None,
    body: ErrorBody,
    *,
    retry_after_s: float | None = None,
    limits: VendorLimits | None = None,
    secrets: Iterable[str] = (),
) -> ProviderError:
    """The error of the tree for a failed call. `status` is the HTTP status, None for an error inside a stream."""
    status = status or body.status
    said = excerpt(body.text, secrets)
    message = " ".join(part for part in (f"{provider} API error:", str(status) if status else "", said) if part)
    cls = _class_for(status, body)
    wait_s = body.retry_after_s if retry_after_s is None else retry_after_s
    return cls(message, provider=provider, status=status, retry_after_s=wait_s, limits=limits)


def _class_for(status: int | None, body: ErrorBody) -> type[ProviderError]:
    said = body.text
    if _NO_MONEY.search(said) or status == 402:
        return AuthenticationFailed  # a rate limit by its status, but waiting does not help
    if status == 400 and _BAD_KEY.search(said):
        return AuthenticationFailed  # Google's status for a wrong key
    if status in (None, 400, 413, 422, 500) and _TOO_LONG.search(said):
        return ContextTooLong
    by_status = _CLASS_BY_STATUS.get(status or 0)
    if by_status is not None and by_status is not Unavailable:
        return by_status
    for word, cls in _CLASS_BY_KIND.items():
        if word in body.kind.lower():
            return cls
    if "overloaded" in said.lower():
        return Overloaded
    if by_status is not None or status is None or status >= 500:
        return Unavailable
    return InvalidRequest if status >= 300 else BadResponse


_CLASS_BY_STATUS: Mapping[int, type[ProviderError]] = {
    401: AuthenticationFailed,
    403: AuthenticationFailed,
    408: Unavailable,
    409: Unavailable,
    424: Unavailable,
    425: Unavailable,
    429: RateLimited,
    503: Overloaded,
    529: Overloaded,
}

_CLASS_BY_KIND: Mapping[str, type[ProviderError]] = {
    "content_filter": Refused,
    "overloaded": Overloaded,
    "rate_limit": RateLimited,
    "throttling": RateLimited,
    "resource_exhausted": RateLimited,
    "authentication": AuthenticationFailed,
    "permission": AuthenticationFailed,
    "invalid_api_key": AuthenticationFailed,
    "invalid_request": InvalidRequest,
    "not_found": InvalidRequest,
}


def broken_by(error: ProviderError) -> ProviderError:
    """An error inside an answer that may pass is a broken stream: the turn can be started over."""
    if not error.retryable:
        return error
    broken = StreamBroken(str(error), provider=error.provider, status=error.status, retry_after_s=error.retry_after_s)
    broken.__cause__ = error
    return broken


def secrets_of(call: Call) -> tuple[str, ...]:
    """The secret values of a request, to be kept out of messages."""
    values = [value for name, value in call.headers.items() if _SECRET_HEADER.search(name)]
    return (*values, *(value.rpartition(" ")[2] for value in values), *call.secrets)  # `Bearer` is no secret


def excerpt(text: str, secrets: Iterable[str] = ()) -> str:
    """The beginning of what a server said, without secrets: none is cut before it is found."""
    return redact(text, secrets)[:_EXCERPT_CHARS]


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without the given secrets, as they are or in a form's encoding, and without what looks like a key."""
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, "***").replace(quote_plus(secret), "***")
    return _KEY_LIKE.sub("***", text)


def _page_text(body: bytes) -> str:
    text = body[:20_000].decode("utf-8", "replace")
    if "<" in text:
        text = re.sub(r"<(script|style)\b.*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL | re.IGNORECASE)
    return " ".join(text.split())
