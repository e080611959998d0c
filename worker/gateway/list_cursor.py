"""Cursors of lists, as clients see them: text that means nothing to anybody but the list that gave it."""

from __future__ import annotations

import base64
import binascii
from typing import Protocol, TypeVar

import msgspec

from worker.gateway.problem import Problem


class Positioned(Protocol):
    """What a cursor holds at least."""

    @property
    def position(self) -> int:
        """How much of the list was passed."""
        ...


C = TypeVar("C", bound=Positioned)


def encode_cursor(cursor: Positioned) -> str:
    """The text to give to the client."""
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def decode_cursor(text: str, form: type[C], *, most: int) -> C:
    """The cursor in a client's text; of empty text, one at the beginning. Raises `Problem` 400 for text that is none,
    or that leads further than `most`."""
    if not text:
        return form()
    try:
        raw = base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
        cursor = msgspec.json.decode(raw, type=form)
    except (binascii.Error, msgspec.MsgspecError, UnicodeError, ValueError):
        cursor = None
    if cursor is None or not 0 <= cursor.position <= most:
        raise Problem(400, "cursor is none that this list gave: begin without one", code="invalid_cursor")
    return cursor
