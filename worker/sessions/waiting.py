"""Which conversations have messages that wait, so that these are answered whoever should have started them and died.

Whoever lets a message wait notes its conversation. Now and then one of the workers goes through all that are noted,
starts what can be started, and forgets those in which nothing waits any more.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

import structlog

from queue_backends import BackendUnavailable, QueueError, StateStore
from worker.sessions.model import Chat

WAITING = "session-waiting/"
LOOK_S = 30.0
"""So often conversations are looked through, by whichever worker comes first."""
_TURN = "session-waiting-looked-through"

Advance = Callable[[str, str], Awaitable[Chat]]
"""Starts the next message of a conversation, if the one before has ended; returns what goes on then."""

log = structlog.get_logger(__name__)


class Waiting:
    """The conversations in which messages wait. Every method may raise `BackendUnavailable`."""

    def __init__(self, state: StateStore, advance: Advance, *, keep_s: float) -> None:
        """Notes are kept for `keep_s`, as the conversations are."""
        self._state = state
        self._advance = advance
        self._keep_s = keep_s

    async def note(self, session_id: str, conversation_id: str) -> None:
        """A message waits there."""
        # Each note is another one: what is written while somebody looks at an older one is not forgotten with that.
        note = secrets.token_hex(8).encode()
        await self._state.set(f"{WAITING}{session_id}/{conversation_id}", note, ttl_s=self._keep_s)

    async def look(self) -> None:
        """Go through all of them, unless somebody has within `LOOK_S`."""
        if not await self._state.compare_and_set(_TURN, None, b"1", ttl_s=LOOK_S):
            return
        for key, note in [found async for found in self._state.scan(WAITING)]:
            session_id, _, conversation_id = key.removeprefix(WAITING).partition("/")
            try:
                chat = await self._advance(session_id, conversation_id)
            except BackendUnavailable:
                raise
            except QueueError as error:
                log.warning("a conversation does not go on", conversation=conversation_id, error=str(error))
                continue
            if not chat.waiting:
                await self._state.compare_and_set(key, note, None)
