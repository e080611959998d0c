"""Writes that must happen: repeated while the broker is away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from queue_backends import BackendUnavailable

FIRST_DELAY_S = 0.05
LONGEST_DELAY_S = 2.0

T = TypeVar("T")

log = structlog.get_logger(__name__)


async def persistently(write: Callable[[], Awaitable[T]], what: str) -> T:
    """Do `write` until the broker takes it; it must be one that is safe to repeat.

    There is no limit of its own: what bounds the wait is the run's time limit, or the worker's drain, by cancellation.
    """
    delay_s, complained = FIRST_DELAY_S, False
    while True:
        try:
            result = await write()
        except BackendUnavailable as error:
            if not complained:
                log.warning("the broker is away, trying until it is back", doing=what, error=str(error))
                complained = True
            await asyncio.sleep(random.uniform(delay_s / 2, delay_s))  # noqa: S311 - jitter is no secret
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)
        else:
            if complained:
                log.info("the broker is back", doing=what)
            return result
