"""What changes in conversations, heard once per process and told to those who watch a session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from queue_backends import StateChange, StateStore
from worker.following import Following
from worker.sessions.model import CHATS

_HELLO = f"{CHATS}~hello"


class SessionChanges:
    """The conversations of one session that have changed since they were last asked for."""

    def __init__(self) -> None:
        self._changed: set[str] = set()
        self._all = False
        self._news = asyncio.Event()

    def tell(self, conversation_id: str) -> None:
        """A conversation has changed."""
        self._changed.add(conversation_id)
        self._news.set()

    def tell_all(self) -> None:
        """Any of them may have changed."""
        self._all = True
        self._news.set()

    async def next(self, timeout_s: float) -> set[str] | None:
        """Wait for changes and return the ids, or nothing when the time is over; None: look at all of them."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return set()
        changed, self._changed = self._changed, set()
        is_all, self._all = self._all, False
        self._news.clear()
        return None if is_all else changed


class ChatWatch:
    """Follows the records of all conversations: `async with ChatWatch(state) as watch`."""

    def __init__(self, state: StateStore) -> None:
        self._listeners: dict[str, set[SessionChanges]] = {}
        self._following = Following(
            state, CHATS, _HELLO, what="conversations", changed=self._heard, keep=self._watch_has_begun
        )

    @contextmanager
    def of(self, session_id: str) -> Iterator[SessionChanges]:
        """Changes of a session's conversations, from now on."""
        changes = SessionChanges()
        listeners = self._listeners.setdefault(session_id, set())
        listeners.add(changes)
        try:
            yield changes
        finally:
            listeners.discard(changes)
            if not listeners and self._listeners.get(session_id) is listeners:
                del self._listeners[session_id]

    async def __aenter__(self) -> Self:
        self._following.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._following.stop()

    def _heard(self, change: StateChange) -> None:
        session_id, _, conversation_id = change.key.removeprefix(CHATS).partition("/")
        for changes in self._listeners.get(session_id, ()):
            changes.tell(conversation_id)

    async def _watch_has_begun(self) -> None:
        """Whatever was told before that may have been missed."""
        for listeners in self._listeners.values():
            for changes in listeners:
                changes.tell_all()
        self._following.has_read()
        await asyncio.Event().wait()
