"""What all endpoints of one gateway share beside its parts: authentication, limits, figures, and the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from worker.gateway.auth import Authenticator
from worker.gateway.browser_guard import BrowserGuard
from worker.gateway.context import Gateway
from worker.gateway.gateway_metrics import GatewayMetrics
from worker.gateway.limits import FailureLimit, RequestLimits, StreamSlots
from worker.gateway.peers import Peers


class OpenStreams:
    """The event streams that are being sent, so that they can be ended in order."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()
        self._empty = asyncio.Event()
        self.is_ending = False

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """The current task sends a stream."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - the server answers each request in a task
        self._tasks.add(task)
        try:
            if self.is_ending:
                task.cancel()
            yield
        finally:
            self._tasks.discard(task)
            if not self._tasks:
                self._empty.set()

    async def end(self, limit_s: float) -> None:
        """Cancel all, and wait until they have said goodbye."""
        self.is_ending = True
        if not self._tasks:
            return
        self._empty.clear()
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._empty.wait()


class Front:
    """One per application."""

    def __init__(self, gateway: Gateway, auth: Authenticator) -> None:
        settings = gateway.settings.gateway
        self.settings = settings
        self.auth = auth
        self.guard = BrowserGuard(settings)
        self.peers = Peers(settings.trusted_proxies)
        self.limits = RequestLimits(burst=settings.burst)
        self.failures = FailureLimit()
        self.slots = StreamSlots(most=settings.max_streams, most_of_one=settings.max_streams_per_key)
        self.streams = OpenStreams()
        self.metrics = GatewayMetrics()
