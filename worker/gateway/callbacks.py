"""Callbacks: where to tell that a task has ended. What is kept of each, and how it is put in order and shown.

One that is due is under `gateway/callbacks/due/<task id>` until it is delivered or given up; then it stands for some
days under `gateway/callbacks/over/<task id>`. Any gateway may deliver what another one took.
"""

from __future__ import annotations

import enum
import secrets
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from queue_backends import LogRecord, StateStore
from queue_backends.messages import encode_json
from worker.gateway.callback_signature import check_secret
from worker.gateway.problem import Problem
from worker.net_guard import AddressRefused, NetGuard
from worker.sealing import Sealer

DUE = "gateway/callbacks/due/"
OVER = "gateway/callbacks/over/"
HELLO = f"{DUE}-"
"""By which those who follow the due ones find out that they do. No task has this id."""
KEEP_DUE_S = 30 * 24 * 3600.0
"""A task that has not ended by then is told of to nobody."""
KEEP_OVER_S = 3 * 24 * 3600.0
LONGEST_URL = 2000
_DEAD = "gateway/callbacks/dead"
_LOOKED_AT = 1000


class CallbackEvent(enum.StrEnum):
    """What is told."""

    SUCCEEDED = "task.succeeded"
    FAILED = "task.failed"
    CANCELLED = "task.cancelled"


class CallbackState(enum.StrEnum):
    """How far a callback has come."""

    PENDING = "pending"
    """The task has not ended, or its end is yet to be told."""
    DELIVERED = "delivered"
    DEAD = "dead"
    """Given up, after a day of trying or because the address is refused."""
    SKIPPED = "skipped"
    """The task ended in a way that was not asked for."""


class CallbackRequest(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where to tell when a task has ended."""

    url: Annotated[str, Meta(min_length=1, max_length=LONGEST_URL)]
    """`https://…` of the public internet, or an address that the operator allows."""
    secret: Annotated[str, Meta(max_length=200)] = ""
    """Signs the call, in the format of Standard Webhooks: `whsec_` and base64 of 24 to 64 bytes. Absent: it is not
    signed."""
    events: tuple[CallbackEvent, ...] = ()
    """Which ends to tell of; empty: all."""

    def __repr__(self) -> str:
        return f"CallbackRequest(url={self.url!r}, events={self.events!r})"


class CallbackView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What has become of a callback."""

    id: str
    """Its `webhook-id`, the same with each try."""
    task_id: str
    state: CallbackState
    url: str = ""
    is_signed: bool = False
    tries: int = 0
    last_status: int | None = None
    """HTTP status of the last answer."""
    last_error: str = ""
    last_tried_at: float | None = None
    """Unix seconds, as the next one."""
    next_try_at: float | None = None


class Callback(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A callback as it is kept."""

    task_id: str
    id: str
    url: str
    tenant: str = ""
    secret: str = ""
    """Sealed, if there is a key for that."""
    events: tuple[CallbackEvent, ...] = ()
    state: CallbackState = CallbackState.PENDING
    tries: int = 0
    first_tried_at: float | None = None
    last_tried_at: float | None = None
    last_status: int | None = None
    last_error: str = ""
    next_try_at: float | None = None

    def __repr__(self) -> str:
        return f"Callback({self.id} of {self.task_id}, {self.state})"

    @property
    def sealed_name(self) -> str:
        """What its secret is sealed to, so that it opens under no other."""
        return f"callback {self.id}"


class Callbacks:
    """The callbacks of the fleet, in the `StateStore`."""

    def __init__(self, state: StateStore, guard: NetGuard, sealer: Sealer) -> None:
        self._state = state
        self._guard = guard
        self._sealer = sealer

    def check(self, wanted: CallbackRequest) -> None:
        """Raise `Problem` 422 for one that can never be delivered."""
        try:
            self._guard.check_url(wanted.url)
        except AddressRefused as error:
            raise Problem(422, f"callback.url: {error}", code="callback_refused") from error
        check_secret(wanted.secret)

    async def add(self, task_id: str, wanted: CallbackRequest, *, tenant: str = "") -> CallbackView:
        """Put a callback in order; nothing happens if the task has, or had, one already. It was checked."""
        if (before := await self.read(task_id)) is not None:
            return view_of(before)
        callback = Callback(
            task_id=task_id,
            id=_new_id(),
            url=wanted.url,
            events=tuple(sorted(set(wanted.events))),
            tenant=tenant,
        )
        sealed = self._sealer.seal(callback.sealed_name, wanted.secret) if wanted.secret else ""
        callback = replace(callback, secret=sealed)
        if not await self._state.compare_and_set(DUE + task_id, None, encode_json(callback), ttl_s=KEEP_DUE_S):
            callback = await self.read(task_id) or callback
        return view_of(callback)

    async def read(self, task_id: str) -> Callback | None:
        """A task's callback; None if it has none."""
        raw = await self._state.get(DUE + task_id) or await self._state.get(OVER + task_id)
        return opened(raw) if raw else None

    async def view(self, task_id: str) -> CallbackView | None:
        """A task's callback, as it is shown."""
        callback = await self.read(task_id)
        return view_of(callback) if callback else None

    async def due(self) -> dict[str, Callback]:
        """All that are not over, by task. Raises `BackendUnavailable`."""
        return {
            callback.task_id: callback
            async for key, raw in self._state.scan(DUE)
            if key != HELLO and (callback := opened(raw)) is not None
        }

    async def again(self, task_id: str) -> CallbackView | None:
        """Put one that is over in order again, as a new message. None if the task has none that is over, or if that was
        just done."""
        raw = await self._state.get(OVER + task_id)
        old = opened(raw) if raw else None
        if old is None:
            return None
        new = Callback(task_id=task_id, id=_new_id(), url=old.url, events=old.events, tenant=old.tenant)
        if old.secret:
            new = replace(new, secret=self._sealer.seal(new.sealed_name, self.secret_of(old)))
        if not await self._state.compare_and_set(DUE + task_id, None, encode_json(new), ttl_s=KEEP_DUE_S):
            return None
        await self._state.delete(OVER + task_id)
        return view_of(new)

    async def keep(self, callback: Callback) -> None:
        """Store how far one has come."""
        if callback.state is CallbackState.PENDING:
            await self._state.set(DUE + callback.task_id, encode_json(callback), ttl_s=KEEP_DUE_S)
            return
        raw = encode_json(callback)
        if callback.state is CallbackState.DEAD:
            await self._state.append_once([LogRecord(log=_DEAD, id=callback.id, value=raw, keep_s=KEEP_OVER_S)])
        await self._state.set(OVER + callback.task_id, raw, ttl_s=KEEP_OVER_S)
        await self._state.delete(DUE + callback.task_id)

    async def dead(self, *, tenant: str = "", limit: int = 100) -> list[CallbackView]:
        """Those that were given up, the newest first; of one tenant, or of all."""
        entries = await self._state.read_log(_DEAD, limit=_LOOKED_AT, newest_first=True)
        found = [callback for entry in entries if (callback := opened(entry.value)) is not None]
        return [view_of(callback) for callback in found if tenant in ("", callback.tenant)][:limit]

    def secret_of(self, callback: Callback) -> str:
        """Its secret. Raises `CannotOpen`."""
        return self._sealer.open(callback.sealed_name, callback.secret)


def _new_id() -> str:
    return f"msg_{secrets.token_hex(12)}"


def opened(raw: bytes) -> Callback | None:
    """A callback as it was kept; None for one that a newer version wrote, which will deliver it."""
    try:
        return msgspec.json.decode(raw, type=Callback)
    except msgspec.MsgspecError:
        return None


def view_of(callback: Callback) -> CallbackView:
    """What its owner may see: no secret."""
    return CallbackView(
        id=callback.id,
        task_id=callback.task_id,
        state=callback.state,
        url=callback.url,
        is_signed=bool(callback.secret),
        tries=callback.tries,
        last_status=callback.last_status,
        last_error=callback.last_error,
        last_tried_at=callback.last_tried_at,
        next_try_at=callback.next_try_at,
    )
