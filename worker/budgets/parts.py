"""Many accounts, a bounded number at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

AT_ONCE = 100

T = TypeVar("T")
R = TypeVar("R")


async def in_parts(items: Iterable[T], step: Callable[[T], Awaitable[R]]) -> list[R]:
    """Do a step with each, a hundred at a time; the answers in order. Raises what a step raises."""
    left, answers = list(items), list[R]()
    for start in range(0, len(left), AT_ONCE):
        answers += await asyncio.gather(*map(step, left[start : start + AT_ONCE]))
    return answers
