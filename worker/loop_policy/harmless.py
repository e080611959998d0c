"""What a policy does may cost a run what it would have had of it, never the run itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from providers import InvalidRequest, ProviderError
from queue_backends import LeaseLost, QueueError
from worker.datasources.errors import BadVectorStore
from worker.errors import WorkerError
from worker.loop_policy.figures import Figures
from worker.teams.memory.interfaces import MemoryUnavailable
from worker.tools.interfaces import OutputNotKept

REST_S = 60.0
"""So long something is left alone that has not answered in time: else each tool call would wait for it."""

T = TypeVar("T")
_OURS = (ProviderError, WorkerError, QueueError, MemoryUnavailable, OutputNotKept)
"""Their messages are made for people, and hold no secret."""
_FOR_GOOD = (InvalidRequest, BadVectorStore)
"""Asking again does not help."""

log = structlog.get_logger(__name__)


class Rests:
    """What is left alone for a while, for all runs of a worker."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def begin(self, what: str) -> None:
        """It has not answered in time."""
        self._until[what] = time.monotonic() + REST_S

    def is_resting(self, what: str) -> bool:
        """Whether it is left alone."""
        return time.monotonic() < self._until.get(what, 0.0)


class Harmless:
    """Does what a policy wants for one run, and logs what goes wrong with it."""

    def __init__(self, task_id: str, rests: Rests, figures: Figures) -> None:
        self._task_id = task_id
        self._rests = rests
        self._figures = figures
        self._given_up: set[str] = set()

    async def attempt(self, part: str, do: Callable[[], Awaitable[T]], *, limit_s: float, rests: str = "") -> T | None:
        """What it does; None if that went wrong, or has before and always will. With `rests`, a place that has not
        answered in time is left alone for a while. Raises only what ends the run: `LeaseLost`, a cancellation."""
        if part in self._given_up or (rests and self._rests.is_resting(rests)):
            return None
        limit = asyncio.timeout(limit_s)
        try:
            async with limit:
                return await do()
        except LeaseLost:
            raise
        except TimeoutError as error:
            reason = f"no answer within {limit_s:g} s" if limit.expired() else str(error) or "no answer in time"
            if rests:
                self._rests.begin(rests)
        except _OURS as error:
            reason = str(error)
            if isinstance(error, _FOR_GOOD) or isinstance(error.__cause__, _FOR_GOOD):
                self._given_up.add(part)
        except Exception as error:  # a store or a provider is anybody's code: what it says may be secret
            log.debug("a loop policy's part has failed", part=part, task=self._task_id, exc_info=error)
            reason = f"{type(error).__name__}, which the debug log shows"
        self._figures.failed(part)
        log.warning(
            "a loop policy's part has failed, the run goes on without it",
            part=part,
            task=self._task_id,
            reason=reason,
            is_given_up=part in self._given_up,
        )
        return None
