"""Reading answers that may be anything."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from providers.errors import BadResponse

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""All that decoding raises for data that is not of its form: the last for JSON nested a thousand levels deep."""

_T = TypeVar("_T")


def decoded(decoder: msgspec.json.Decoder[_T], answer: bytes, provider: str, what: str = "the answer") -> _T:
    """The answer as the decoder reads it. Raises `BadResponse` that says what cannot be read, and why."""
    try:
        return decoder.decode(answer)
    except UNREADABLE as error:
        raise unreadable(error, provider, what) from error


def unreadable(error: Exception, provider: str, what: str = "the answer") -> BadResponse:
    """The error for what cannot be read."""
    return BadResponse(f"{provider}: {what} cannot be read: {error}", provider=provider)
