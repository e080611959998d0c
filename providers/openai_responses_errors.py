"""From what the Responses API says went wrong, inside a stream or in a response, to the error tree. Pure.

Source: https://platform.openai.com/docs/api-reference/responses-streaming (`error`, `response.failed`).
"""

from __future__ import annotations

import re
from typing import Any

from providers.content_filter import filtered_categories
from providers.errors import InvalidRequest, ProviderError, Refused
from providers.http_errors import ErrorBody, error_body, error_for
from providers.vendor_limits import duration_s

_PERMANENT_CODES = (
    "invalid_prompt",
    "data_residency_mismatch",
    "image",  # invalid_image_url, image_too_large, failed_to_download_image and a dozen others
)
_WAIT = re.compile(r"try again in ([\dhms.]*[hms])")
"""`Please try again in 6m0s`, in the form of the headers."""

_REFUSAL_CODES = ("content_policy", "policy_violation", "bio_policy", "content_filter")


def reported_error(provider: str, error: Any, status: int | None = None) -> ProviderError:
    """The error for an `error` object, or for an `error` event, which has the same fields."""
    said = error_body(error)
    if isinstance(error, dict) and error.get("type") == "error" and not isinstance(error.get("error"), dict):
        said = ErrorBody(message=said.message, kind=str(error.get("code") or ""), status=said.status)
    found = error_for(provider, status, said)
    found.retry_after_s = found.retry_after_s or _wait_s(said.message)
    kind = said.kind.lower()
    if any(code in kind for code in _REFUSAL_CODES):
        return Refused(str(found), provider=provider, status=found.status)
    # Without a status any unknown error is taken for one that passes.
    if found.retryable and found.status is None and any(code in kind for code in _PERMANENT_CODES):
        return InvalidRequest(str(found), provider=provider)
    return found


def _wait_s(message: str) -> float | None:
    """Inside a stream there is no header to say how long to wait; the message does."""
    named = _WAIT.search(message)
    return duration_s(named[1]) if named else None


def filtered_answer(provider: str, content_filters: Any) -> Refused | None:
    """The error for an answer that Azure's content filter stopped, if it says why."""
    categories = filtered_categories(content_filters)
    if not categories:
        return None
    return Refused(f"{provider}: the content filter stopped the answer ({categories})", provider=provider)
