"""What the fleet remembers of triggers: who has claimed which firing, how far that has come, and what became of it.

- `trigger-firings/<namespace>/<slug>/<id>`: a firing. The first who writes it has claimed it; if somebody could claim
  it again, it stands for some time after its end.
- `trigger-given/<id>-<digest>`: what its templates see, until it is over.
- `trigger-cursors/<namespace>/<slug>`: up to which tick a schedule has been looked at.
- The log `trigger-history/<namespace>/<slug>`: firings that are over, each once; it counts them, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from queue_backends import LogRecord, StateStore
from queue_backends.messages import encode_json
from worker.teams.triggers.errors import KeyReused
from worker.teams.triggers.firing import Firing, FiringState, Given

FIRINGS = "trigger-firings/"
HELLO = f"{FIRINGS}~hello"
KEEP_CLAIM_S = 8 * 86_400.0
"""Longer than the longest starting deadline: what was claimed is not claimed again."""
KEEP_IDEMPOTENT_S = 86_400.0
"""So long a webhook's idempotency key stands for its firing."""
KEEP_MARKS_S = 90 * 86_400.0
"""Cursors, and slots of triggers that fire one at a time."""
KEEP_HISTORY_S = 30 * 86_400.0
"""As long as runs are kept by default."""
FIRED = "fired"
SKIPPED = "skipped"
FAILED = "failed"

_firing = msgspec.json.Decoder(Firing).decode


class Cursor(Struct, frozen=True, kw_only=True):
    """How far a schedule has been looked at."""

    object_id: int
    version: int
    """Of the trigger, when that was written."""
    tick: float
    """No tick up to this one is to be fired any more. Unix seconds."""


class Ledger:
    """The state store, as triggers use it. Every method may raise `BackendUnavailable`."""

    def __init__(self, state: StateStore) -> None:
        self.state = state

    # Firings

    async def claim(self, firing: Firing, given: Given | None = None) -> tuple[Firing, bool]:
        """Claim a firing, unless it is claimed; the firing as it stands, and whether it was new. Raises `KeyReused` if
        it was claimed with something else given."""
        raw = encode_json(given) if given is not None and given != Given() else b""
        if raw:
            firing = replace(firing, given=hashlib.sha256(raw).hexdigest()[:24])
        key = firing_key(firing)
        while True:
            if (found := await self.read(key)) is not None:
                if found.given != firing.given:
                    raise KeyReused("this idempotency key stands for a request with another body: use a new key")
                return found, False
            if raw:  # before the claim: whoever carries on has to find it
                await self.state.set(_given_key(firing), raw, ttl_s=KEEP_CLAIM_S)
            if await self.state.compare_and_set(key, None, encode_json(firing), ttl_s=KEEP_CLAIM_S):
                return firing, True

    async def read(self, key: str) -> Firing | None:
        """A firing by its key; None: there is none any more."""
        raw = await self.state.get(key)
        return _firing(raw) if raw is not None else None

    async def given(self, firing: Firing) -> Given:
        """What its templates see."""
        if not firing.given:
            return Given()
        raw = await self.state.get(_given_key(firing))
        return msgspec.json.decode(raw, type=Given) if raw is not None else Given()

    async def advance(self, before: Firing, after: Firing) -> Firing:
        """Note how far a firing has come, unless somebody else has noted more; the firing as it then stands."""
        key, keep_s = firing_key(before), KEEP_CLAIM_S
        if after.state.is_over and after.source != "cron":
            keep_s = KEEP_IDEMPOTENT_S
        if await self.state.compare_and_set(key, encode_json(before), encode_json(after), ttl_s=keep_s):
            return after
        return await self.read(key) or after

    async def note(self, firing: Firing) -> Firing:
        """Put what is over into the history, once, and let go what only its templates needed."""
        if firing.is_noted:
            return firing
        counters = {FIRED: 1} if firing.state is FiringState.FIRED else {}
        counters |= {SKIPPED: 1} if firing.state is FiringState.SKIPPED else {}
        counters |= {FAILED: 1} if firing.error and firing.state is not FiringState.SKIPPED else {}
        await self.state.append_once(
            [
                LogRecord(
                    log=_history(firing.namespace, firing.trigger),
                    id=firing.id,
                    value=encode_json(replace(firing, targets=())),
                    keep_s=KEEP_HISTORY_S,
                    counters={_counts(firing.namespace, firing.trigger, firing.object_id): counters},
                )
            ]
        )
        if firing.given:
            await self.state.delete(_given_key(firing))
        noted = replace(firing, is_noted=True)
        if firing.is_single:
            await self.state.delete(firing_key(firing))
            return noted
        return await self.advance(firing, noted)

    # Schedules

    async def cursor(self, namespace: str, slug: str) -> tuple[bytes | None, Cursor | None]:
        """How far a schedule has been looked at, as it is stored too; None: never."""
        raw = await self.state.get(_cursor(namespace, slug))
        return raw, msgspec.json.decode(raw, type=Cursor) if raw is not None else None

    async def move(self, namespace: str, slug: str, expected: bytes | None, cursor: Cursor) -> bool:
        """Look no more at what is before. False: somebody else has moved it."""
        return await self.state.compare_and_set(
            _cursor(namespace, slug), expected, encode_json(cursor), ttl_s=KEEP_MARKS_S
        )

    # What became of it

    async def history(self, namespace: str, slug: str, *, limit: int = 20) -> Sequence[Firing]:
        """Firings that are over, the newest first."""
        entries = await self.state.read_log(_history(namespace, slug), limit=limit, newest_first=True)
        return [_firing(entry.value) for entry in entries]

    async def counts(self, namespace: str, slug: str, object_id: int) -> dict[str, int]:
        """How often it has fired, was skipped and has failed: `fired`, `skipped`, `failed`."""
        return await self.state.counters(_counts(namespace, slug, object_id))


def firing_key(firing: Firing) -> str:
    """Where a firing stands."""
    return f"{FIRINGS}{firing.namespace}/{firing.trigger}/{firing.id}"


def decode_firing(value: bytes) -> Firing | None:
    """A firing as it stands; None for one that another version of this program wrote."""
    try:
        return _firing(value)
    except msgspec.MsgspecError:
        return None


def _given_key(firing: Firing) -> str:
    return f"trigger-given/{firing.id}-{firing.given}"


def _cursor(namespace: str, slug: str) -> str:
    return f"trigger-cursors/{namespace}/{slug}"


def _history(namespace: str, slug: str) -> str:
    return f"trigger-history/{namespace}/{slug}"


def _counts(namespace: str, slug: str, object_id: int) -> str:
    return f"trigger-counts/{namespace}/{slug}/{object_id}"
