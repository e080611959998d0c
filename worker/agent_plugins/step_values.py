"""A plugin's values as one message sees them: each reading and writing is a step, and counts once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from worker.agent_plugins.key_values import (
    StoredValues,
    check_key,
    checked_expiry,
    checked_value,
    from_record,
    to_record,
)
from worker.agent_plugins.message import Message
from worker.agents.model import PermissionScope


class StepValues:
    """What a message has read it reads again after a crash, and what it has written it does not write twice: a counter
    that is read, raised and written is raised once."""

    def __init__(self, message: Message, stored: StoredValues) -> None:
        self._message = message
        self._stored = stored

    async def get(self, key: str) -> bytes | None:
        """The value, if there is one."""
        check_key(key)
        recorded = await self._step(["get", key], lambda: self._get(key))
        return from_record(recorded)

    async def set(self, key: str, value: bytes | str, *, expires_in_s: float | None = None) -> bool:
        """Set a value; says whether there was none."""
        check_key(key)
        plain, lifetime_s = checked_value(value), checked_expiry(expires_in_s)
        asked = ["set", key, to_record(plain), lifetime_s]
        return bool(await self._step(asked, lambda: self._stored.set(key, plain, expires_in_s=lifetime_s), writes=True))

    async def delete(self, key: str) -> bool:
        """Delete a value; says whether there was one."""
        check_key(key)
        return bool(await self._step(["delete", key], lambda: self._stored.delete(key), writes=True))

    async def list(self, prefix: str = "") -> list[str]:
        """Keys that begin so."""
        found = await self._step(["list", prefix], lambda: self._stored.list(prefix))
        return [str(key) for key in found]

    async def _get(self, key: str) -> str | None:
        return to_record(await self._stored.get(key))

    async def _step(self, asked: Sequence[Any], work: Callable[[], Awaitable[Any]], *, writes: bool = False) -> Any:
        self._message.permissions.need(PermissionScope.KV_READWRITE)
        return await self._message.service(self._carry_out(asked, work, writes=writes))

    async def _carry_out(self, asked: Sequence[Any], work: Callable[[], Awaitable[Any]], *, writes: bool) -> Any:
        message = self._message
        step, chunks = message.steps.begin("kv", asked), message.given.chunks
        message.sections.cut()
        await message.sections.advance()
        if (answer := message.steps.answer(step)) is not None:
            return answer.value
        chunks.note(*message.steps.begun(step))
        if writes:  # what it follows from must be known before it takes effect
            await chunks.store()
        value = await work()
        chunks.note(*message.steps.ended(step, value))
        return value
