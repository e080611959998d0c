"""Several endless streams as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")

WAITING = 1000
"""So many items may wait for a slow consumer; then the streams wait."""


async def merged(streams: Sequence[AsyncIterator[T]]) -> AsyncIterator[T]:
    """Items as they come; ends when all streams have ended, and raises what one of them raises."""
    items: asyncio.Queue[T] = asyncio.Queue(WAITING)

    async def pump(stream: AsyncIterator[T]) -> None:
        async with closing(stream):
            async for item in stream:
                await items.put(item)

    pumps = {asyncio.create_task(pump(stream), name="merge") for stream in streams}
    try:
        while pumps or not items.empty():
            getting = asyncio.create_task(items.get(), name="merged")
            try:
                await asyncio.wait([getting, *pumps], return_when=asyncio.FIRST_COMPLETED)
                if getting.done():
                    yield getting.result()
            finally:
                getting.cancel()
                await asyncio.wait([getting])
            for ended in [pump for pump in pumps if pump.done()]:
                pumps.discard(ended)
                ended.result()
    finally:
        for pumping in pumps:
            pumping.cancel()
        if pumps:
            await asyncio.wait(pumps)


@asynccontextmanager
async def closing(stream: AsyncIterator[T]) -> AsyncIterator[None]:
    """Close a stream that was given up in the middle."""
    try:
        yield
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()
