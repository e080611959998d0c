"""Questions of plugins to people: asked through RequestApproval, answered with `shoal approval`.

| key              | value              | lives                                |
|------------------|--------------------|--------------------------------------|
| `approvals/<id>` | `Approval`, JSON   | until its time is up, and an hour    |
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from queue_backends import QueueError, StateChange, StateStore
from queue_backends.messages import encode_json
from worker.errors import ApprovalNotFound

PREFIX = "approvals/"
LONGEST_S = 24 * 3600.0
_KEPT_S = 3600.0
_LOOK_AGAIN_S = 5.0
_TAKE_BACK_S = 1.0


class Approval(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A question, and its answer once there is one."""

    id: str
    description: str
    permission: str = ""
    tenant_id: str = ""
    execution_id: str = ""
    step_id: str = ""
    context: str = ""
    asked_at: float = 0.0
    """Unix seconds."""
    until: float = 0.0
    """When nobody waits for the answer any more. Unix seconds."""
    decided: bool = False
    approved: bool = False
    reviewer: str = ""
    comment: str = ""


_approvals = msgspec.json.Decoder(Approval)


class Approvals:
    """Every method may raise `BackendUnavailable`."""

    def __init__(self, state: StateStore) -> None:
        self._state = state

    async def ask(self, question: Approval, timeout_s: float) -> Approval:
        """Put a question and wait for its answer; it comes back undecided if there is none in time."""
        timeout_s = min(max(timeout_s, 0.0), LONGEST_S)
        now = time.time()
        asked = replace(question, id=secrets.token_hex(4), asked_at=now, until=now + timeout_s)
        await self._state.set(PREFIX + asked.id, encode_json(asked), ttl_s=timeout_s + _KEPT_S)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._decided(asked)
        except TimeoutError:
            await self._state.delete(PREFIX + asked.id)
            return asked
        except asyncio.CancelledError:  # who asked is gone, and nobody shall answer into the void
            with contextlib.suppress(QueueError, TimeoutError):
                async with asyncio.timeout(_TAKE_BACK_S):
                    await self._state.delete(PREFIX + asked.id)
            raise

    async def _decided(self, asked: Approval) -> Approval:
        """Wake at the answer. The watch may begin a moment after it was given, so that is looked up now and then."""
        heard = asyncio.Event()
        listening = asyncio.create_task(self._listen(asked.id, heard), name=f"approval {asked.id}")
        try:
            while True:
                heard.clear()
                value = await self._state.get(PREFIX + asked.id)
                if value is not None and (found := _approvals.decode(value)).decided:
                    return found
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_AGAIN_S):
                        await heard.wait()
        finally:
            listening.cancel()
            await asyncio.wait([listening])

    async def _listen(self, approval_id: str, heard: asyncio.Event) -> None:
        changes = cast("AsyncGenerator[StateChange, None]", self._state.watch(PREFIX + approval_id))
        async with aclosing(changes):
            async for _ in changes:
                heard.set()

    async def pending(self) -> list[Approval]:
        """Questions that somebody waits for, the oldest first."""
        found = [_approvals.decode(value) async for _, value in self._state.scan(PREFIX)]
        open_ones = [each for each in found if not each.decided and each.until > time.time()]
        return sorted(open_ones, key=lambda each: each.asked_at)

    async def decide(self, approval_id: str, *, approved: bool, reviewer: str = "", comment: str = "") -> Approval:
        """Answer a question. Raises `ApprovalNotFound` if nobody waits for that any more."""
        key = PREFIX + approval_id
        before = await self._state.get(key)
        found = _approvals.decode(before) if before else None
        if found is None or found.decided or found.until <= time.time():
            raise ApprovalNotFound(
                f"no approval {approval_id!r} is waiting: `shoal approval list` shows those that are"
            )
        answer = replace(found, decided=True, approved=approved, reviewer=reviewer, comment=comment)
        if not await self._state.compare_and_set(key, before, encode_json(answer), ttl_s=_KEPT_S):
            raise ApprovalNotFound(f"approval {approval_id!r} was answered by somebody else just now")
        return answer
