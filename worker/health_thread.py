"""The health pages in a thread of their own: they answer, and tell why, while the worker's event loop is held up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from worker.health import HealthServer
from worker.side_loop import SideLoop

T = TypeVar("T")


@asynccontextmanager
async def served_beside(server: HealthServer) -> AsyncIterator[None]:
    """Serve the pages while the body runs. What they ask of this loop goes through `from_beside`."""
    async with SideLoop("health pages") as side:
        await side.run(server.start())
        try:
            yield
        finally:
            await side.run(server.close())


def from_beside(call: Callable[[], Coroutine[Any, Any, T]]) -> Callable[[], Coroutine[Any, Any, T]]:
    """The same call for another loop's use; it is done in the loop that runs now, where what it needs lives."""
    home = asyncio.get_running_loop()

    async def call_home() -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), home))

    return call_home
