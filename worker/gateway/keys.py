"""API keys: `shoal_<id>_<secret>`, shown once, kept as a hash, live on every gateway of the fleet.

The secret has 256 random bits, so that its plain SHA-256 can be kept: nobody can guess it, and no slow hash is needed,
which would be an invitation to overload the gateway.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Final, Self

import msgspec
from msgspec import Struct

from queue_backends import QueueError, StateStore
from worker.gateway.caller import Caller, Scope
from worker.objects import BadObject, ObjectNotFound, ObjectStore, Stored
from worker.objects.slug import check_slug

PREFIX: Final = "shoal_"
KEEP_ENDED_S: Final = 90 * 24 * 3600.0
"""How long keys that are revoked or have expired are still shown."""

_ID_LETTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"
_ID_CHARS: Final = 12
_MOST_CHARS: Final = 200
_CALLER: Final = "key:"
_USED: Final = "gateway/key-used/"
_NOTE_EVERY_S: Final = 300.0
_NOTE_LIMIT_S: Final = 2.0
_KEEP_USE_S: Final = 366 * 24 * 3600.0
_LONGEST_LIFE_S: Final = 100 * 366 * 24 * 3600.0


class ApiKey(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key as it is kept. The secret itself is known to its owner alone."""

    slug: str
    """Its id: the part between `shoal_` and the secret."""
    digest: str
    """SHA-256 of the secret, hexadecimal."""
    name: str = ""
    """For people: what it is for."""
    scopes: tuple[Scope, ...] = ()
    groups: tuple[str, ...] = ()
    tenant: str = ""
    """Its namespace; empty: not bound to one."""
    app: str = ""
    expires_at: float | None = None
    """Unix seconds; None: never."""
    revoked_at: float | None = None
    requests_per_minute: int | None = None
    """None: the gateway's own limit; 0: no limit."""
    created_by: str = ""

    @property
    def namespace(self) -> str:
        """Keys are addressed by their id alone."""
        return ""

    def is_usable(self, now: float) -> bool:
        """Whether it opens anything at a time (Unix seconds)."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def __repr__(self) -> str:
        return f"<ApiKey {self.slug} {self.name!r}>"


class ApiKeys:
    """All keys of the fleet. Entered (`async with`), it follows every change, which takes well below a second."""

    def __init__(self, state: StateStore, *, clock: Callable[[], float] = time.time) -> None:
        self._state = state
        self._store = ObjectStore(state, "key", ApiKey)
        self._clock = clock
        self._noted: dict[str, float] = {}
        """Key id -> when its use was last written down."""

    async def __aenter__(self) -> Self:
        """Read all keys and follow them. Raises `BackendUnavailable`."""
        await self._store.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._store.__aexit__(kind, error, trace)

    async def load(self) -> None:
        """Read all keys once, without following them. Raises `BackendUnavailable`."""
        await self._store.load()

    @property
    def are_there(self) -> bool:
        """Whether there is any key, be it a revoked one: from the first on, nobody comes in without."""
        return bool(self._store.all())

    def all(self) -> Sequence[Stored[ApiKey]]:
        """All keys, the newest first."""
        return self._store.all()

    def get(self, key_id: str) -> Stored[ApiKey]:
        """One key. Raises `ObjectNotFound`."""
        found = self._store.get(key_id)
        if found is None:
            raise ObjectNotFound(f"there is no key {key_id[:100]!r}: name it by its id, the part after 'shoal_'")
        return found

    async def create(
        self,
        name: str,
        scopes: Iterable[Scope],
        groups: Iterable[str] = (),
        tenant: str = "",
        app: str = "",
        expires_at: float | None = None,
        *,
        requests_per_minute: int | None = None,
        by: str = "",
    ) -> tuple[ApiKey, str]:
        """A new key and what its owner sends: it cannot be shown again.

        Raises `BadObject`, `BackendUnavailable`.
        """
        secret = secrets.token_hex(32)
        key = ApiKey(
            slug="".join(secrets.choice(_ID_LETTERS) for _ in range(_ID_CHARS)),
            digest=_digest(secret),
            name=name,
            scopes=tuple(sorted(set(scopes))),
            groups=tuple(sorted(set(groups))),
            tenant=tenant,
            app=app,
            expires_at=expires_at,
            requests_per_minute=requests_per_minute,
            created_by=by,
        )
        self._check(key)
        await self._forget_old()
        await self._store.create(key, by=by)
        return key, f"{PREFIX}{key.slug}_{secret}"

    async def revoke(self, key_id: str, *, by: str = "") -> Stored[ApiKey]:
        """Make a key useless, everywhere within about a second. Raises `ObjectNotFound`, `BackendUnavailable`."""

        def revoked(key: ApiKey) -> ApiKey:
            return key if key.revoked_at is not None else msgspec.structs.replace(key, revoked_at=self._clock())

        return await self._store.change(key_id, revoked, by=by)

    def find(self, text: str) -> ApiKey | None:
        """The key that a caller sent, whatever its state; None if it is none of ours. Takes the same time for a wrong
        secret as for a right one."""
        if not text.startswith(PREFIX) or len(text) > _MOST_CHARS:
            return None
        key_id, _, secret = text.removeprefix(PREFIX).partition("_")
        stored = self._store.get(key_id)
        known = stored.value.digest if stored else _NOBODYS_DIGEST
        is_right = hmac.compare_digest(_digest(secret), known)
        return stored.value if stored is not None and is_right else None

    async def authenticate(self, secret: str) -> Caller | None:
        """Whose key that is; None if it is unknown, revoked or has expired."""
        key = self.find(secret)
        if key is None or not key.is_usable(self._clock()):
            return None
        await self._note_use(key.slug)
        return caller_of(key)

    async def last_used_at(self, key_id: str) -> float | None:
        """When a key was last used (Unix seconds), to within some minutes; None: never, or long ago.

        Raises `BackendUnavailable`.
        """
        raw = await self._state.get(f"{_USED}{key_id}")
        return float(raw) if raw else None

    def opens(self, caller_id: str) -> bool:
        """Whether the key of a caller still opens what it opened. True for callers that came without a key of ours."""
        if not caller_id.startswith(_CALLER):
            return True
        stored = self._store.get(caller_id.removeprefix(_CALLER))
        return stored is not None and stored.value.is_usable(self._clock())

    def state_of(self, key: ApiKey) -> str:
        """`active`, `revoked` or `expired`."""
        if key.revoked_at is not None:
            return "revoked"
        return "active" if key.is_usable(self._clock()) else "expired"

    async def _note_use(self, key_id: str) -> None:
        now = self._clock()
        if now - self._noted.get(key_id, 0.0) < _NOTE_EVERY_S:
            return
        self._noted[key_id] = now
        try:
            async with asyncio.timeout(_NOTE_LIMIT_S):
                await self._state.set(f"{_USED}{key_id}", f"{now:.0f}".encode(), ttl_s=_KEEP_USE_S)
        except (TimeoutError, QueueError):  # nobody is turned away because of this
            self._noted[key_id] = now - _NOTE_EVERY_S + _NOTE_LIMIT_S

    def requests_per_minute(self, caller_id: str) -> int | None:
        """What a key says about how often its owner may ask; None: nothing."""
        stored = self._store.get(caller_id.removeprefix(_CALLER)) if caller_id.startswith(_CALLER) else None
        return stored.value.requests_per_minute if stored is not None else None

    def _check(self, key: ApiKey) -> None:
        if not key.name.strip():
            raise BadObject("name is empty: say what the key is for")
        if len(key.name) > _MOST_CHARS:
            raise BadObject(f"name has {len(key.name)} characters, at most {_MOST_CHARS} are allowed")
        if not key.scopes:
            raise BadObject(f"scopes is empty: name some of {', '.join(Scope)}")
        for what, slugs in (("groups", key.groups), ("tenant", (key.tenant,)), ("app", (key.app,))):
            for slug in slugs:
                if slug:
                    check_slug(what, slug)
        now = self._clock()
        if key.expires_at is not None and not key.expires_at > now:
            raise BadObject(f"expires_at is {key.expires_at:.0f}, which has passed: name a later time, in Unix seconds")
        if key.expires_at is not None and key.expires_at > now + _LONGEST_LIFE_S:
            raise BadObject(
                f"expires_at is {key.expires_at:g}, more than a century away: it is in Unix seconds, not milliseconds"
            )
        if key.requests_per_minute is not None and key.requests_per_minute < 0:
            raise BadObject(f"requests_per_minute is {key.requests_per_minute}: use 0 (no limit) or more")

    async def _forget_old(self) -> None:
        before = self._clock() - KEEP_ENDED_S
        for stored in self._store.all():
            key = stored.value
            ended_at = min(key.revoked_at or float("inf"), key.expires_at or float("inf"))
            if ended_at < before:
                await self._store.delete(key.slug)


def caller_of(key: ApiKey) -> Caller:
    """The caller that a key stands for."""
    return Caller(
        id=f"{_CALLER}{key.slug}",
        name=key.name,
        scopes=frozenset(key.scopes),
        groups=frozenset(key.groups),
        tenant=key.tenant,
        app=key.app,
        expires_at=key.expires_at,
    )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


_NOBODYS_DIGEST: Final = _digest(secrets.token_hex(32))
