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
    That the broker is away is said once, by the backend, and not by each of those who wait for it.
    """
    delay_s = FIRST_DELAY_S
    while True:
        try:
            return await write()
        except BackendUnavailable as error:
            log.debug("the broker is away, trying again", doing=what, error=str(error))
        await asyncio.sleep(random.uniform(delay_s / 2, delay_s))  # noqa: S311 - jitter is no secret
        delay_s = min(2 * delay_s, LONGEST_DELAY_S)
