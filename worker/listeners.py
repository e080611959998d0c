"""Callbacks that want to hear of changes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

C = TypeVar("C", bound=Callable[..., Any])


class Listeners(Generic[C]):
    """Those who listen now; to go through them is to see who was there at the beginning, though some may leave
    meanwhile."""

    def __init__(self) -> None:
        self._callbacks: list[C] = []

    def add(self, callback: C) -> Callable[[], None]:
        """One more; call what is returned to have it leave."""
        self._callbacks.append(callback)

        def leave() -> None:
            with contextlib.suppress(ValueError):  # it has left already
                self._callbacks.remove(callback)

        return leave

    def __iter__(self) -> Iterator[C]:
        return iter(tuple(self._callbacks))
