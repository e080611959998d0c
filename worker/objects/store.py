"""A store of one kind of declared objects, and a mirror of it in each process.

- `objects/<kind>/<namespace>/<slug>` holds the object as JSON. A deleted one leaves a tombstone for a month, so that a
  process that was cut off hears of it too.
- The log `objects/<kind>/<namespace>/<slug>` keeps the versions that there were.
- The counter set `objects/ids` gives ids: numbers, per kind, never used twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import msgspec
import structlog
from msgspec import Struct

from queue_backends import BackendUnavailable, LogRecord, StateChange, StateStore
from worker.following import Following
from worker.listeners import Listeners
from worker.nesting import check_nesting
from worker.objects.errors import BadObject, ObjectConflict, ObjectExists, ObjectNotFound
from worker.objects.slug import check_slug

MOST_OBJECTS = 10_000
"""Of one kind: each process holds all of them."""
MOST_BYTES = 256 * 1024
GLOBAL = ""
"""The namespace that everybody sees."""

PREFIX = "objects/"
_IDS = "objects/ids"
_KEEP_VERSIONS_S = 365 * 24 * 3600.0
_TOMBSTONE_TTL_S = 30 * 24 * 3600.0
LOAD_LIMIT_S = 60.0
RECONCILE_S = 6 * 3600.0
_TRIES = 20
_AT_ONCE = 100
"""So many objects are read before others get their turn."""

log = structlog.get_logger(__name__)


class Declared(Protocol):
    """What every kind of object has. Slug and namespace are its address and never change."""

    @property
    def slug(self) -> str: ...

    @property
    def namespace(self) -> str:
        """Whose it is (a tenant); empty: everybody's."""
        ...


T = TypeVar("T", bound=Declared)


class Stored(Struct, Generic[T], frozen=True, kw_only=True, omit_defaults=True):
    """An object as it is kept."""

    id: int
    version: int
    """Counts from 1, up by one with each change."""
    created_at: float
    """Unix seconds, as the other one."""
    updated_at: float
    updated_by: str = ""
    """Who made this version: a caller's name, never a secret."""
    value: T


class _Kept(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The JSON of one key: an object, or what is left of a deleted one (without a value)."""

    id: int
    version: int
    created_at: float
    updated_at: float
    updated_by: str = ""
    value: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def is_tombstone(self) -> bool:
        """Whether the object is deleted."""
        return bytes(self.value) == b"null"


Changed = Callable[["Stored[Any] | None", "Stored[Any] | None"], None]
"""Is told an object before and after a change; None: there was none, there is none any more. Must return at once."""


class ObjectStore(Generic[T]):
    """All objects of one kind. Entered (`async with`), it holds all of them and follows every change, which takes well
    below a second; while the store is away it keeps what it knew last.

    Not entered, it holds what `load` read, and the methods that write work as well.
    """

    def __init__(self, state: StateStore, kind: str, of: type[T], *, check: Callable[[T], None] | None = None) -> None:
        """`check` raises `BadObject` for what may not be stored."""
        self.kind = kind
        self._state = state
        self._type = of
        self._check_kind = check
        self._prefix = f"{PREFIX}{kind}/"
        self._hello = f"{self._prefix}~hello"
        self._objects: dict[tuple[str, str], Stored[T]] = {}
        self._by_id: dict[int, Stored[T]] = {}
        self._gone: set[tuple[str, str]] = set()
        """Those of which only a tombstone is left."""
        self._listeners = Listeners[Changed]()
        self._following = Following(
            state, self._prefix, self._hello, what=f"{kind} objects", changed=self.heard, keep=self._keep_whole
        )
        self._loading = asyncio.Lock()
        self._touched: set[str] = set()
        """Keys that a change has come for since the present reading began: what was read of them may be older."""

    def __repr__(self) -> str:
        return f"<ObjectStore {self.kind}, {len(self._objects)} objects>"

    # Reading

    def get(self, slug: str, namespace: str = GLOBAL) -> Stored[T] | None:
        """The object of exactly that namespace."""
        return self._objects.get((namespace, slug))

    def visible(self, slug: str, namespace: str) -> Stored[T] | None:
        """The object that a member of a namespace means by a slug: its own, or else everybody's."""
        return self._objects.get((namespace, slug)) or self._objects.get((GLOBAL, slug))

    def by_id(self, number: int) -> Stored[T] | None:
        """The object of that id."""
        return self._by_id.get(number)

    def was_deleted(self, slug: str) -> bool:
        """Whether there was an object of that slug, in any namespace, that is deleted; for as long as that is known."""
        return any(each == slug for _, each in self._gone)

    def all(self) -> Sequence[Stored[T]]:
        """All objects, the newest first."""
        return sorted(self._by_id.values(), key=lambda each: each.id, reverse=True)

    def on_change(self, callback: Changed) -> Callable[[], None]:
        """Call back, in this event loop, for each change from now on; call what is returned to stop that."""
        return self._listeners.add(callback)

    async def versions(self, slug: str, namespace: str = GLOBAL, *, limit: int = 100) -> list[Stored[T]]:
        """What the object was, the newest version first, deleted objects too. Raises `BackendUnavailable`."""
        entries = await self._state.read_log(self._key(slug, namespace), limit=limit, newest_first=True)
        known = (self._version(entry.value, slug) for entry in entries)
        return [version for version in known if version is not None]

    def _version(self, raw: bytes, slug: str) -> Stored[T] | None:
        try:
            return self._opened(msgspec.json.decode(raw, type=_Kept))
        except msgspec.MsgspecError as error:  # as in `_put`
            log.warning("a version of an object cannot be read", kind=self.kind, slug=slug, error=str(error))
            return None

    async def read(self, slug: str, namespace: str = GLOBAL) -> Stored[T]:
        """The object as it stands in the store, whatever the mirror knows.

        Raises `ObjectNotFound`, `BadObject` if it cannot be read, `BackendUnavailable`.
        """
        _, kept = await self._read(slug, namespace)
        found = self._opened(kept) if kept is not None else None
        if found is None:
            raise self._not_found(slug, namespace)
        return found

    # Writing

    async def create(self, value: T, *, by: str = "") -> Stored[T]:
        """Store a new object. Raises `BadObject`, `ObjectExists`, `BackendUnavailable`."""
        self.check(value)
        if len(self._objects) >= MOST_OBJECTS:
            raise BadObject(f"there are {MOST_OBJECTS} {self.kind} objects already: delete some")
        number: int | None = None
        for _ in range(_TRIES):
            raw, kept = await self._read(value.slug, value.namespace)
            if kept is not None and not kept.is_tombstone:
                raise ObjectExists(
                    f"{self.kind} {value.slug!r} is there already: change that one, or choose another slug"
                )
            if number is None:
                number = await self._state.add(_IDS, self.kind, 1)
            now = time.time()
            version = kept.version + 1 if kept is not None else 1
            new = Stored(id=number or 0, version=version, created_at=now, updated_at=now, updated_by=by, value=value)
            if await self._write(raw, new):
                return new
        raise self._contended(value.slug)

    async def update(self, value: T, *, expected_version: int | None = None, by: str = "") -> Stored[T]:
        """Replace the object that has the value's slug and namespace.

        Raises `BadObject`, `ObjectNotFound`, `ObjectConflict` if it is at another version than was expected,
        `BackendUnavailable`.
        """
        self.check(value)
        return await self.change(value.slug, lambda _: value, value.namespace, expected_version=expected_version, by=by)

    async def change(
        self,
        slug: str,
        change: Callable[[T], T],
        namespace: str = GLOBAL,
        *,
        expected_version: int | None = None,
        by: str = "",
    ) -> Stored[T]:
        """Make a new version out of the present one; `change` may be called several times. Raises as `update`."""
        for _ in range(_TRIES):
            raw, kept = await self._read(slug, namespace)
            present = self._opened(kept) if kept is not None else None
            if kept is None or present is None:
                raise self._not_found(slug, namespace)
            self._check_version(slug, present.version, expected_version)
            value = change(present.value)
            if value == present.value:
                return present
            self.check(value)
            if (value.slug, value.namespace) != (slug, namespace):
                raise BadObject(f"{self.kind} {slug!r}: slug and namespace cannot be changed: create a new object")
            new = Stored(
                id=present.id,
                version=present.version + 1,
                created_at=present.created_at,
                updated_at=time.time(),
                updated_by=by,
                value=value,
            )
            if await self._write(raw, new):
                return new
        raise self._contended(slug)

    async def delete(self, slug: str, namespace: str = GLOBAL, *, expected_version: int | None = None) -> Stored[T]:
        """Delete an object and return what it was. Raises as `update`."""
        key = self._key(slug, namespace)
        for _ in range(_TRIES):
            raw, kept = await self._read(slug, namespace)
            present = self._opened(kept) if kept is not None else None
            if kept is None or present is None:
                raise self._not_found(slug, namespace)
            self._check_version(slug, present.version, expected_version)
            tombstone = _Kept(
                id=present.id, version=present.version, created_at=present.created_at, updated_at=time.time()
            )
            left = msgspec.json.encode(tombstone)
            self._touched.discard(key)
            if await self._state.compare_and_set(key, raw, left, ttl_s=_TOMBSTONE_TTL_S):
                self._written(key, left)
                return present
        raise self._contended(slug)

    def check(self, value: T) -> None:
        """Raise `BadObject` for what may not be stored."""
        check_slug("slug", value.slug)
        if value.namespace:
            check_slug("namespace", value.namespace)
        try:
            for name in value.__struct_fields__:  # type: ignore[attr-defined]  # every kind is a Struct
                check_nesting(getattr(value, name))
        except ValueError as error:
            raise BadObject(f"{self.kind} {value.slug!r}: {name}: {error}") from error
        if self._check_kind is not None:
            self._check_kind(value)
        try:
            size = len(msgspec.json.encode(value))
        except (TypeError, ValueError, RecursionError) as error:
            raise BadObject(f"{self.kind} {value.slug!r} cannot be written as JSON: {error}") from error
        if size > MOST_BYTES:
            raise BadObject(f"{self.kind} {value.slug!r} has {size} bytes, at most {MOST_BYTES} are allowed")

    def _check_version(self, slug: str, present: int, expected: int | None) -> None:
        if expected is not None and expected != present:
            raise ObjectConflict(
                f"{self.kind} {slug!r} is at version {present}, not {expected}: somebody has changed it meanwhile; "
                "read it again"
            )

    def _not_found(self, slug: str, namespace: str) -> ObjectNotFound:
        where = f" in namespace {namespace!r}" if namespace else ""
        return ObjectNotFound(f"there is no {self.kind} {slug[:100]!r}{where}")

    def _contended(self, slug: str) -> BackendUnavailable:
        return BackendUnavailable(f"{self.kind} {slug!r} was changed by others {_TRIES} times meanwhile: try again")

    async def _write(self, expected: bytes | None, new: Stored[T]) -> bool:
        key, encoded = self._key(new.value.slug, new.value.namespace), msgspec.json.encode(new)
        self._touched.discard(key)
        if not await self._state.compare_and_set(key, expected, encoded):
            return False
        self._written(key, encoded)
        record = LogRecord(log=key, id=f"{new.id}:{new.version}", value=encoded, keep_s=_KEEP_VERSIONS_S)
        await self._state.append_once([record])
        return True

    def _written(self, key: str, raw: bytes) -> None:
        """Our own write shows at once, unless the watch has told of a newer one; and a reading that began before it
        does not undo it."""
        if key not in self._touched:
            self._put(key, raw)
            self._touched.add(key)

    async def _read(self, slug: str, namespace: str) -> tuple[bytes | None, _Kept | None]:
        raw = await self._state.get(self._key(slug, namespace))
        try:
            kept = msgspec.json.decode(raw, type=_Kept) if raw else None
            if kept is not None:
                self._opened(kept)
        except msgspec.MsgspecError as error:
            raise BadObject(
                f"{self.kind} {slug!r} cannot be read: {error}: it was written by another version of this program"
            ) from error
        return raw, kept

    def _key(self, slug: str, namespace: str) -> str:
        return f"{self._prefix}{namespace}/{slug}"

    def _opened(self, kept: _Kept) -> Stored[T] | None:
        if kept.is_tombstone:
            return None
        return Stored(
            id=kept.id,
            version=kept.version,
            created_at=kept.created_at,
            updated_at=kept.updated_at,
            updated_by=kept.updated_by,
            value=msgspec.json.decode(kept.value, type=self._type),
        )

    # Following

    async def load(self) -> None:
        """Read all objects anew. Raises `BackendUnavailable`; then those known before stay."""
        async with self._loading:
            self.begin_reading()
            await self.end_reading({key: value async for key, value in self._state.scan(self._prefix)})

    def begin_reading(self) -> None:
        """Somebody reads all keys of this kind: what changes from now on is newer than what is read."""
        self._touched.clear()

    async def end_reading(self, found: Mapping[str, bytes]) -> None:
        """These are all of its keys."""
        known = self._objects.keys() | self._gone
        gone = [key for namespace, slug in known if (key := self._key(slug, namespace)) not in found]
        for number, (key, value) in enumerate((*found.items(), *((key, b"") for key in gone))):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)  # there may be ten thousand
            if key not in self._touched and key != self._hello:
                self._put(key, value)

    async def look_again(self, slug: str, namespace: str) -> Stored[T] | None:
        """What a member of a namespace means by a slug, read from the store: for who cannot wait for the news of it.

        Raises `BackendUnavailable`.
        """
        for where in {namespace, GLOBAL}:
            if raw := await self._state.get(self._key(slug, where)):
                self._put(self._key(slug, where), raw, is_news=True)
        return self.visible(slug, namespace)

    def heard(self, change: StateChange) -> None:
        """One of its keys has changed."""
        if change.key != self._hello:
            self._touched.add(change.key)
            self._put(change.key, change.value or b"", is_news=True)

    async def __aenter__(self) -> Self:
        """Read all objects and follow them. Raises `BackendUnavailable` if that takes more than a minute."""
        await self._following.begin(LOAD_LIMIT_S)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._following.stop()

    async def _keep_whole(self) -> None:
        await self._following.read_again_and_again(self.load, RECONCILE_S)

    def _put(self, key: str, raw: bytes, *, is_news: bool = False) -> None:
        namespace, _, slug = key.removeprefix(self._prefix).partition("/")
        before = self._objects.get((namespace, slug))
        try:
            kept = msgspec.json.decode(raw, type=_Kept) if raw else None
            after = self._opened(kept) if kept is not None else None
        except msgspec.MsgspecError as error:  # written by a newer version, or by hand
            log.warning("a declared object cannot be read", kind=self.kind, slug=slug, error=str(error))
            return
        is_older = kept is not None and before is not None and (kept.id, kept.version) < (before.id, before.version)
        if is_news and is_older:
            return  # somebody else's change from before our own, heard of late
        if kept is not None and after is None:
            self._gone.add((namespace, slug))
        else:
            self._gone.discard((namespace, slug))
        if after == before:
            return
        if before is not None:
            self._by_id.pop(before.id, None)
        if after is None:
            self._objects.pop((namespace, slug), None)
        else:
            self._objects[namespace, slug] = after
            self._by_id[after.id] = after
        for callback in self._listeners:
            try:
                callback(before, after)
            except Exception:  # the others are told all the same
                log.exception("a change of an object was not taken", kind=self.kind, slug=slug)
