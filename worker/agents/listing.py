"""Lists of declared objects: which ones are wanted, and one page of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct

from worker.objects import Declared, Stored

MOST_ON_A_PAGE = 1000

T = TypeVar("T", bound=Declared)


class Wanted(Struct, frozen=True, kw_only=True):
    """Which objects to list. What is empty or None does not choose."""

    namespace: str | None = None
    """That one's and everybody's; empty: everybody's alone; None: all."""
    is_active: bool | None = None
    app: str = ""
    plugin: str = ""
    text: str = ""
    """In slug, name or description, in any letter case."""


class Page(Struct, Generic[T], frozen=True, kw_only=True):
    """Some of the objects that were wanted, the newest first."""

    items: tuple[Stored[T], ...]
    total: int
    """How many there are on all pages."""
    page: int
    limit: int


def fits(value: Any, wanted: Wanted) -> bool:
    """Whether an object is one of those that are wanted."""
    if wanted.namespace is not None and value.namespace not in ("", wanted.namespace):
        return False
    if wanted.is_active is not None and getattr(value, "is_active", True) is not wanted.is_active:
        return False
    if any(asked and getattr(value, field, "") != asked for field, asked in _asked(wanted)):
        return False
    text = wanted.text.casefold()
    return not text or any(text in part.casefold() for part in (value.slug, value.name, value.description))


def _asked(wanted: Wanted) -> Iterator[tuple[str, str]]:
    yield "app", wanted.app
    yield "plugin", wanted.plugin


def page_of(found: Sequence[Stored[T]], *, page: int, limit: int) -> Page[T]:
    """One page of what was found; pages count from 1, and one has at most `MOST_ON_A_PAGE`."""
    page, limit = max(page, 1), min(max(limit, 1), MOST_ON_A_PAGE)
    first = (page - 1) * limit
    return Page(items=tuple(found[first : first + limit]), total=len(found), page=page, limit=limit)
