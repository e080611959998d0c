"""Whose a conversation is: of who began it, or of whose session it is in. Nobody else of its tenant may go on with it.

What is said in a conversation comes back in the answers to whoever goes on with it, so its id alone must not be enough.
"""

from __future__ import annotations

from urllib.parse import quote

from queue_backends import StateStore
from worker.sessions.conversation_log import log_name


def _key(tenant: str, conversation_id: str) -> str:
    return f"conversation-owners/{quote(tenant, safe='')}/{quote(conversation_id, safe='')}"


async def own(state: StateStore, tenant: str, conversation_id: str, owner: str, *, keep_s: float) -> None:
    """Note whose it is, for `keep_s` from now on. Raises `BackendUnavailable`."""
    await state.set(_key(tenant, conversation_id), owner.encode(), ttl_s=keep_s)


async def disown(state: StateStore, tenant: str, conversation_id: str) -> None:
    """It is gone. Raises `BackendUnavailable`."""
    await state.delete(_key(tenant, conversation_id))


async def is_claimed(state: StateStore, tenant: str, conversation_id: str, owner: str, *, keep_s: float) -> bool:
    """Whether the conversation is the owner's, from now on if it has yet to begin. One that was begun without saying
    whose it is, by another engine, is nobody's. Raises `BackendUnavailable`."""
    key, raw = _key(tenant, conversation_id), owner.encode()
    found = await state.get(key)
    if found is None:
        if await state.read_log(log_name(tenant, conversation_id), limit=1):
            return False
        if await state.compare_and_set(key, None, raw, ttl_s=keep_s):
            return True
        found = await state.get(key)
    elif found == raw:
        await state.compare_and_set(key, raw, raw, ttl_s=keep_s)
    return found == raw
