"""How workers hear that a session has ended: whoever closes it says so under a key of its own."""

from __future__ import annotations

from queue_backends import StateStore

PREFIX = "agent_plugins/closed/"
_TTL_S = 600.0


async def announce_closed(state: StateStore, session_id: str) -> None:
    """Tell every worker that a session has ended: plugins that had it are told. Raises `BackendUnavailable`."""
    await state.set(PREFIX + session_id, b"1", ttl_s=_TTL_S)
