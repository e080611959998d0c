"""What was begun at a store and shall not be finished is taken back there, though the caller is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from worker.artifacts.errors import ArtifactsFailed

WITHIN_S = 4.0
"""A run that was told to end may take a few seconds for it."""

log = structlog.get_logger(__name__)


async def take_back(step: Callable[[], Awaitable[None]], what: str) -> None:
    """Do the step to its end, whoever cancels meanwhile, but no longer than `WITHIN_S`. A cancellation is raised when
    it is over; that the step fails is only logged."""
    taking = asyncio.create_task(_tried(step, what), name=f"take back {what}")
    interrupted = False
    while not taking.done():
        try:
            await asyncio.wait({taking})
        except asyncio.CancelledError:
            interrupted = True
    taking.result()
    if interrupted:
        raise asyncio.CancelledError


async def _tried(step: Callable[[], Awaitable[None]], what: str) -> None:
    try:
        async with asyncio.timeout(WITHIN_S):
            await step()
    except (ArtifactsFailed, TimeoutError) as error:
        log.warning("parts of a file may be left in the store until its own rules remove them", of=what, why=str(error))
