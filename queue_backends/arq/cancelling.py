"""Hearing of cancels: announced by Shoal, written down by arq's `Job.abort()`, which announces nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from queue_backends.arq.health import Health
from queue_backends.arq.names import ArqKeys
from queue_backends.arq.wire import Scripts
from queue_backends.errors import BackendUnavailable
from queue_backends.redis.pubsub import Inbox, PubSubHub

ABORT_LOOK_S = 0.5
"""arq's clients wake nobody: a worker looks this often at what they asked to abort."""
LONGEST_REST_S = 30.0
"""Between two looks while every one of them finds the server away."""


class Cancellations:
    """The ids of running tasks whose cancel was asked."""

    def __init__(self, keys: ArqKeys, scripts: Scripts, hub: PubSubHub, consumer: str, health: Health) -> None:
        self._keys = keys
        self._health = health
        self._scripts = scripts
        self._hub = hub
        self._consumer = consumer
        self._asked: asyncio.Queue[str] = asyncio.Queue()

    def note(self, task_id: str) -> None:
        """Somebody has come upon one."""
        self._asked.put_nowait(task_id)

    async def listen(self) -> AsyncIterator[str]:
        """Announced ones, looked-up ones, and those that renewals and pulls came upon. Endless."""
        listening = asyncio.create_task(self._listen(), name="arq cancel listener")
        try:
            while True:
                yield await self._asked.get()
        finally:
            listening.cancel()
            await asyncio.wait([listening])

    async def _listen(self) -> None:
        while True:
            try:
                async with self._hub.listen(self._keys.control) as inbox:
                    await self._follow(inbox)
            except BackendUnavailable:
                continue  # it has waited long enough by itself; renewals see cancellations meanwhile

    async def _follow(self, inbox: Inbox) -> None:
        next_look, rest_s = time.monotonic(), ABORT_LOOK_S
        while True:
            message = await inbox.get(max(0.0, next_look - time.monotonic()))
            verb, _, task_id = (message or b"").decode().partition(" ")
            if verb == "cancel":
                self.note(task_id)
            if time.monotonic() >= next_look:
                rest_s = ABORT_LOOK_S if await self._look() else min(2 * rest_s, LONGEST_REST_S)
                next_look = time.monotonic() + rest_s

    async def _look(self) -> bool:
        """End aborted jobs that wait, note aborted runs of ours, say that we live; tells whether the server answers."""
        try:
            for task_id in await self._scripts.call("aborts", self._consumer):
                self.note(task_id.decode())
            await self._health.beat()
        except BackendUnavailable:
            return False
        return True
