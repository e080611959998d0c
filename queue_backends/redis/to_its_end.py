"""What was sent may be carried out long after its sender has gone, and nobody would know what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

HEARD_OUT_WITHIN_S = 2.0
"""So long what was given up is waited for: no pull blocks longer."""


async def to_its_end(
    claim: Coroutine[Any, Any, T],
    unheard: Callable[[T], None],
    hurry: Callable[[], Awaitable[None]] | None = None,
) -> T:
    """Let a claim end even if this is cancelled, and tell `unheard` what came of it before the cancel takes its course.
    `hurry` asks the server to end it soon."""
    job = asyncio.create_task(claim, name="claim")
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        try:
            if hurry is not None:
                await hurry()
            await asyncio.wait([job], timeout=HEARD_OUT_WITHIN_S)
        finally:
            job.cancel()  # no effect on one that has ended; else it notes that its reply is lost
        if job.done() and not job.cancelled() and job.exception() is None:
            unheard(job.result())
        raise
