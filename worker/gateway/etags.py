"""Versions of objects as entity tags (RFC 9110): `ETag`, `If-None-Match`, `If-Match`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from worker.gateway.operation import Call
from worker.gateway.problem import Problem
from worker.objects import ObjectConflict, Stored


def etag_of(stored: Stored[Any]) -> str:
    """An object's version as `ETag` says it."""
    return f'"{stored.version}"'


def tags_of(header: str) -> list[str]:
    """The tags of an `If-None-Match`."""
    return [tag.strip().removeprefix("W/") for tag in header.split(",")]


def expected_version(call: Call) -> int | None:
    """The version that `If-Match` wants; None: any. Raises `Problem` 400 for what is no version."""
    header = call.request.headers.get("if-match", "").strip()
    if not header or header == "*":
        return None
    tag = header.removeprefix("W/").strip('"')
    if not (tag.isascii() and tag.isdigit() and len(tag) < 10):
        raise Problem(400, f"If-Match is {header[:100]!r}: send the ETag that the object was read with")
    return int(tag)


@contextmanager
def as_precondition() -> Iterator[None]:
    """A conflict of versions is the answer to `If-Match`: 412."""
    try:
        yield
    except ObjectConflict as error:
        raise Problem(412, str(error), code="version_mismatch") from error
