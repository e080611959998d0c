"""The queue's own figures for the metrics pages, asked for while somebody reads them and not otherwise.

They are the fleet's: every worker shows the same ones, a few seconds apart, so a dashboard takes their maximum and
never their sum. A queue that does not answer has no figures here: old ones would look like good ones.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qsl

import structlog

from queue_backends import QueueStats
from worker.log import mask_text

KEEP_S = 5.0
"""An answer, or that there was none, holds for so long: more readers cost the queue nothing."""
LIMIT_S = 1.0
"""So long a reader waits at most."""
DEFAULT_NAME, DEFAULT_OF_ARQ = "agent-tasks", "arq:queue"

_log = structlog.get_logger(__name__)


def queue_name(url: str) -> str:
    """What a queue is called in metrics: the name in its URL, or the engine's default."""
    server, _, query = url.partition("?")
    given = dict(parse_qsl(query))
    default = DEFAULT_OF_ARQ if server.startswith("arq+") else DEFAULT_NAME
    return given.get("stream") or given.get("queue") or default


class QueueGauges:
    """Figures of one queue. Make it in the loop where `stats` belongs; readers may be in other loops and threads."""

    def __init__(
        self,
        stats: Callable[[], Coroutine[Any, Any, QueueStats]],
        name: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._stats = stats
        self._clock = clock
        self._home = asyncio.get_running_loop()
        self._one_at_a_time = asyncio.Lock()
        self._latest: tuple[float, QueueStats | None] | None = None
        """When it was asked, and the answer; replaced as a whole, so that threads may read it."""

    def latest(self) -> QueueStats | None:
        """The figures of the last few seconds; None if there are none, because nobody has refreshed them or the queue
        does not answer."""
        asked = self._latest
        return asked[1] if asked is not None and self._holds(asked[0]) else None

    async def refresh(self) -> None:
        """Ask the queue, unless it has been asked just now. Takes a second at most, whatever the queue does."""
        if self._is_fresh():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIMIT_S):
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._ask(), self._home))

    def refresh_from_thread(self) -> None:
        """As `refresh`, for a thread without a loop; it blocks. Once the loop is closed it does nothing."""
        if self._is_fresh() or self._home.is_closed():
            return
        asked = asyncio.run_coroutine_threadsafe(self._ask(), self._home)
        try:
            asked.result(LIMIT_S)
        except (TimeoutError, concurrent.futures.CancelledError):
            asked.cancel()

    def _is_fresh(self) -> bool:
        asked = self._latest
        return asked is not None and self._holds(asked[0])

    def _holds(self, asked_at: float) -> bool:
        return self._clock() - asked_at < KEEP_S

    async def _ask(self) -> None:
        async with self._one_at_a_time:
            if self._is_fresh():
                return
            began, found = self._clock(), None
            try:
                async with asyncio.timeout(LIMIT_S):
                    found = await self._stats()
            except Exception as error:  # noqa: BLE001 - whatever it is, the page has the other figures
                _log.debug(
                    "the queue's figures are left out of the metrics",
                    error=mask_text(str(error)) or "no answer in time",
                )
            finally:
                self._latest = (began, found)
