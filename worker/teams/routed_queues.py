"""The queues of `AGENT_TEAM_ROUTES`: role -> queue URL, each opened when it is first needed, and shared by all runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from queue_backends import Backend, TaskQueue

OpenBackend = Callable[[str], Awaitable[Backend]]


class RoutedQueues:
    """There are as many connections as the setting names URLs. Use it with `async with`."""

    def __init__(self, routes: Mapping[str, str], open_url: OpenBackend) -> None:
        self._routes = dict(routes)
        self._open_url = open_url
        self._opened: dict[str, Backend] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        """By URL: one that does not answer keeps nobody from the others."""
        self._stack = AsyncExitStack()

    @property
    def roles(self) -> tuple[str, ...]:
        """Whom one may delegate to, sorted by name."""
        return tuple(sorted(self._routes))

    async def queue(self, role: str) -> TaskQueue:
        """The queue of a role. Raises `KeyError`, and what opening it does."""
        url = self._routes[role]
        async with self._opening.setdefault(url, asyncio.Lock()):
            backend = self._opened.get(url)
            if backend is None:
                backend = self._opened[url] = await self._stack.enter_async_context(await self._open_url(url))
        return backend.queue

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.clear()
        await self._stack.aclose()
