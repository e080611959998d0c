"""A duty that one process of the fleet has at a time; when it dies, another one takes over within seconds."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Awaitable, Callable

import structlog

from queue_backends import QueueError, StateStore

TTL_S = 15.0

log = structlog.get_logger(__name__)


class Duty:
    """The duty that `key` stands for. `ttl_s` is how long a dead holder is waited for."""

    def __init__(self, state: StateStore, key: str, *, ttl_s: float = TTL_S) -> None:
        self._state = state
        self._key = key
        self._ttl_s = ttl_s
        self._me = secrets.token_hex(8).encode()

    async def whenever_held(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait for the duty, do `work` for as long as it is ours, and so on. Endless; cancelling gives the duty back.

        `work` is endless, too, and is cancelled when the duty is lost.
        """
        while True:
            if await self._taken():
                try:
                    await self._while_held(work)
                finally:
                    await self._give_back()
            await asyncio.sleep(self._ttl_s / 3 * random.uniform(0.75, 1.25))  # noqa: S311 - so that not all ask at once

    async def _taken(self) -> bool:
        try:
            return await self._state.compare_and_set(self._key, None, self._me, ttl_s=self._ttl_s)
        except QueueError:
            return False

    async def _while_held(self, work: Callable[[], Awaitable[None]]) -> None:
        doing = asyncio.ensure_future(work())
        keeping = asyncio.create_task(self._keep(), name=f"keeping {self._key}")
        try:
            await asyncio.wait([doing, keeping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (doing, keeping):
                task.cancel()
            ends = await asyncio.gather(doing, keeping, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                log.error("a duty of the engine has failed and is begun anew", duty=self._key, exc_info=end)

    async def _keep(self) -> None:
        """Renew until it is lost: to somebody else, or because the store was away for too long."""
        loop = asyncio.get_running_loop()
        good_until = loop.time() + self._ttl_s
        while loop.time() < good_until:
            await asyncio.sleep(self._ttl_s / 5)
            asked_at = loop.time()
            try:
                if not await self._state.compare_and_set(self._key, self._me, self._me, ttl_s=self._ttl_s):
                    return
            except QueueError:
                continue
            good_until = asked_at + self._ttl_s

    async def _give_back(self) -> None:
        with contextlib.suppress(QueueError, TimeoutError):  # it runs out by itself
            async with asyncio.timeout(1):
                await self._state.compare_and_set(self._key, self._me, None)
