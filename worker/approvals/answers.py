"""`Answers`: hears of all decisions through one watch, however many wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec
import structlog

from queue_backends import QueueError, StateChange, StateStore
from worker.approvals.question import Approval
from worker.following import Following

PREFIX = "approvals/"
HELLO = "approvals/(hello)"
WATCH_WITHIN_S = 10.0
"""Whoever waits does not wait longer for the watch to begin: he looks for himself then."""

Told = Callable[[Approval], None]

log = structlog.get_logger(__name__)
_approvals = msgspec.json.Decoder(Approval)


def decode_approval(value: bytes) -> Approval | None:
    """As it is kept; None for what is none, such as a later version's."""
    try:
        return _approvals.decode(value)
    except msgspec.MsgspecError as error:
        log.warning("an approval cannot be read", error=str(error))
        return None


class Answers:
    """The watch begins with the first who waits and ends with the last."""

    def __init__(self, state: StateStore) -> None:
        self._state = state
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._told: list[Told] = []
        self._following: Following | None = None
        self._users = 0

    @contextlib.asynccontextmanager
    async def of(self, approval_id: str) -> AsyncIterator[asyncio.Event]:
        """Set whenever that question may have changed. From here on nothing is missed, unless the store is away."""
        heard = asyncio.Event()
        self._waiting.setdefault(approval_id, set()).add(heard)
        try:
            async with self._used():
                yield heard
        finally:
            self._waiting[approval_id].discard(heard)
            if not self._waiting[approval_id]:
                del self._waiting[approval_id]

    @contextlib.asynccontextmanager
    async def all(self, told: Told) -> AsyncIterator[None]:
        """Tell of every question that is put and every answer from now on; first, and again whenever some may have been
        missed, of all that are kept. One that is deleted is told of as withdrawn."""
        self._told.append(told)
        try:
            async with self._used() as is_new:
                if not is_new:
                    with contextlib.suppress(QueueError):  # the store is away: when it is back, all are told again
                        await self._tell_all([told])
                yield
        finally:
            self._told.remove(told)

    @contextlib.asynccontextmanager
    async def _used(self) -> AsyncIterator[bool]:
        is_new = self._following is None
        self._users += 1
        try:
            if self._following is None:
                self._following = Following(
                    self._state, PREFIX, HELLO, what="approvals", changed=self._changed, keep=self._keep
                )
                self._following.start()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_WITHIN_S):
                    await self._following.loaded()
            yield is_new
        finally:
            self._users -= 1
            if not self._users and self._following is not None:
                following, self._following = self._following, None
                await following.stop()

    def _changed(self, change: StateChange) -> None:
        for heard in self._waiting.get(change.key.removeprefix(PREFIX), ()):
            heard.set()
        if not self._told:
            return
        gone = Approval(id=change.key.removeprefix(PREFIX), decided=True, withdrawn=True)
        found = gone if change.value is None else decode_approval(change.value)
        if found is not None:
            for told in self._told:
                told(found)

    async def _keep(self) -> None:
        """The watch has begun, maybe anew: something may have been missed."""
        for waiting in self._waiting.values():
            for heard in waiting:
                heard.set()
        await self._tell_all(self._told)
        if self._following is not None:
            self._following.has_read()
        await asyncio.Event().wait()

    async def _tell_all(self, listeners: list[Told]) -> None:
        if not listeners:
            return
        async for key, value in self._state.scan(PREFIX):
            if key != HELLO and (found := decode_approval(value)) is not None:
                for told in listeners:
                    told(found)
