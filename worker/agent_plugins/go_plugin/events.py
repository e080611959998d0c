"""Events that the processes of one plugin tell each other, as AI Studio's event service has them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from worker.agent_plugins.go_plugin.messages import Event

MOST_WAITING = 1000
"""A subscriber that is further behind loses the oldest."""
MOST_SUBSCRIBERS = 100


class EventBus:
    """Events of one plugin in this worker. Directions to other places have nowhere to go: all stay here."""

    def __init__(self) -> None:
        self._subscribers: dict[asyncio.Queue[Event], str | None] = {}

    def publish(self, topic: str, payload: bytes, origin: str, direction: int) -> str:
        """Tell all who listen; returns the event's id."""
        event = Event(id=secrets.token_hex(8), topic=topic, origin=origin, direction=direction, payload=payload)
        for waiting, wanted in self._subscribers.items():
            if wanted in (None, topic):
                if waiting.full():
                    waiting.get_nowait()
                waiting.put_nowait(event)
        return event.id

    @property
    def is_full(self) -> bool:
        """Whether nobody else may subscribe."""
        return len(self._subscribers) >= MOST_SUBSCRIBERS

    async def events(self, topic: str | None) -> AsyncIterator[Event]:
        """What is published from now on, of one topic or (None) of all. Endless."""
        with self._subscribed(topic) as waiting:
            while True:
                yield await waiting.get()

    @contextmanager
    def _subscribed(self, topic: str | None) -> Iterator[asyncio.Queue[Event]]:
        waiting: asyncio.Queue[Event] = asyncio.Queue(MOST_WAITING)
        self._subscribers[waiting] = topic
        try:
            yield waiting
        finally:
            del self._subscribers[waiting]
