"""Everything that is done to declared objects of one kind: made, listed, changed, switched, deleted, brought back."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from worker.agents.listing import MOST_ON_A_PAGE, Page, Wanted, fits, page_of
from worker.agents.merge_patch import merge_patch
from worker.agents.references import References
from worker.objects import BadObject, Declared, ObjectExists, ObjectNotFound, ObjectStore, Stored, slugified

T = TypeVar("T", bound=Declared)


class Registrar(Generic[T]):
    """All operations on the objects of one kind, each checked against the other objects.

    What is written is in force in every process within about a second.
    """

    def __init__(
        self,
        store: ObjectStore[T],
        of: type[T],
        references: References,
        refresh: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`refresh` reads the objects anew; None: they are followed."""
        self.kind = store.kind
        self.type = of
        self._store = store
        self._references = references
        self._refresh = refresh

    # Reading

    async def list(self, wanted: Wanted | None = None, *, page: int = 1, limit: int = 100) -> Page[T]:
        """One page of the objects, counted from 1. Raises `BackendUnavailable`."""
        await self.refresh()
        found = [stored for stored in self._store.all() if fits(stored.value, wanted or Wanted())]
        return page_of(found, page=page, limit=limit)

    async def get(self, reference: str | int, namespace: str = "") -> Stored[T]:
        """The object of a slug or an id, within exactly that namespace.

        Raises `ObjectNotFound`, `BackendUnavailable`.
        """
        await self.refresh()
        return self.known(reference, namespace)

    def known(self, reference: str | int, namespace: str = "") -> Stored[T]:
        """As `get`, of what is known already."""
        found = self._store.get(str(reference), namespace)
        if found is None and str(reference).isascii() and str(reference).isdigit():
            found = self._store.by_id(int(str(reference)[:18]))
            if found is not None and found.value.namespace != namespace:
                found = None
        if found is None:
            raise ObjectNotFound(self._none(str(reference), namespace))
        return found

    async def versions(self, slug: str, namespace: str = "", *, limit: int = 100) -> Sequence[Stored[T]]:
        """What the object was, the newest version first; also of a deleted one.

        Raises `ObjectNotFound` if there never was one, `BackendUnavailable`.
        """
        found = await self._store.versions(slug, namespace, limit=limit)
        if not found:
            raise ObjectNotFound(self._none(slug, namespace))
        return found

    async def warnings(self, value: T) -> Sequence[str]:
        """What is odd about an object. Raises `BadObject` for what is wrong with it, `BackendUnavailable`."""
        await self.refresh()
        return self.check(value)

    def check(self, value: T) -> Sequence[str]:
        """As `warnings`, by what is known already."""
        return self._references.check(value)

    # Writing

    async def create(self, value: T | str | None = None, *, by: str = "", **fields: Any) -> Stored[T]:
        """Store a new object: a whole one, or its slug with its other fields. Without a slug it is made of the name.

        Raises `BadObject`, `ObjectExists`, `BackendUnavailable`.
        """
        new = self.read({**({"slug": value} if value else {}), **fields}) if _is_slug(value) else _whole(value, fields)
        if not new.slug:
            new = _with(new, slug=slugified(getattr(new, "name", "")))
        await self.warnings(new)
        return await self._store.create(new, by=by)

    async def update(self, value: T, *, expected_version: int | None = None, by: str = "") -> Stored[T]:
        """Replace the object of the value's slug and namespace.

        Raises `BadObject`, `ObjectNotFound`, `ObjectConflict` if it is at another version than was expected,
        `BackendUnavailable`.
        """
        await self.warnings(value)
        return await self._store.update(value, expected_version=expected_version, by=by)

    async def change(
        self, slug: str, namespace: str = "", *, expected_version: int | None = None, by: str = "", **fields: Any
    ) -> Stored[T]:
        """Change some fields of an object and leave the others. Raises as `update`."""
        await self.refresh()

        def changed(value: T) -> T:
            new = self.read({**_plain(value), **_plain(fields)})
            self._references.check(new)
            return new

        return await self._store.change(slug, changed, namespace, expected_version=expected_version, by=by)

    async def merge(
        self,
        slug: str,
        patch: Mapping[str, Any],
        namespace: str = "",
        *,
        expected_version: int | None = None,
        by: str = "",
        allow: Callable[[T], None] | None = None,
    ) -> Stored[T]:
        """Change an object by a JSON merge patch (RFC 7396): a null takes a field, or a key in it, away. `allow` may
        refuse what comes of it by raising. Raises as `update`."""
        await self.refresh()

        def merged(value: T) -> T:
            new = self.read(merge_patch(_plain(value), patch))
            if allow is not None:
                allow(new)
            self._references.check(new)
            return new

        return await self._store.change(slug, merged, namespace, expected_version=expected_version, by=by)

    async def apply(self, value: T, *, by: str = "") -> tuple[Stored[T], str]:
        """Make the object be like this, whether there is one or not; says `created`, `changed` or `unchanged`.

        Raises `BadObject`, `BackendUnavailable`.
        """
        await self.warnings(value)
        return await self.put(value, by=by)

    async def put(self, value: T, *, by: str = "") -> tuple[Stored[T], str]:
        """As `apply`, of an object that has been checked against the others. Whoever does the same at the same time,
        one of them creates it."""
        while True:
            try:
                before = await self._store.read(value.slug, value.namespace)
                after = await self._store.update(value, by=by)
            except ObjectNotFound:
                with contextlib.suppress(ObjectExists):
                    return await self._store.create(value, by=by), "created"
            else:
                return after, "unchanged" if after.version == before.version else "changed"

    async def activate(self, slug: str, namespace: str = "", *, by: str = "") -> Stored[T]:
        """Switch it on. Raises as `update`."""
        return await self.change(slug, namespace, by=by, is_active=True)

    async def deactivate(self, slug: str, namespace: str = "", *, by: str = "") -> Stored[T]:
        """Switch it off: it stays, and cannot be used. What runs already goes on. Raises as `update`."""
        if "is_active" not in self.type.__struct_fields__:  # type: ignore[attr-defined]  # every kind is a Struct
            raise BadObject(f"a {self.kind} cannot be switched off: delete it")
        return await self._store.change(slug, lambda value: _with(value, is_active=False), namespace, by=by)

    async def delete(self, slug: str, namespace: str = "", *, expected_version: int | None = None) -> Stored[T]:
        """Delete an object that no other one refers to, and return what it was. Its versions are kept for a year.

        Raises `ObjectInUse`, `ObjectNotFound`, `ObjectConflict`, `BackendUnavailable`.
        """
        await self.refresh()
        if (there := self._store.get(slug, namespace)) is not None:
            self._references.check_unused(there.value, self.kind)
        return await self._store.delete(slug, namespace, expected_version=expected_version)

    async def rollback(
        self,
        slug: str,
        version: int,
        namespace: str = "",
        *,
        by: str = "",
        allow: Callable[[T], None] | None = None,
    ) -> Stored[T]:
        """Make an earlier version the present one, as a new version; a deleted object comes back. `allow` may refuse
        what it was by raising.

        Raises `ObjectNotFound` if there is no such version any more, `BadObject` if it refers to what is not there any
        more, `BackendUnavailable`.
        """
        kept = await self.versions(slug, namespace, limit=MOST_ON_A_PAGE)
        found = next((each for each in kept if each.version == version), None)
        if found is None:
            there = ", ".join(str(each.version) for each in kept[:50])
            raise ObjectNotFound(f"{self.kind} {slug!r} has no version {version}; there are: {there}")
        if allow is not None:
            allow(found.value)
        return (await self.apply(found.value, by=by))[0]

    def read(self, fields: Mapping[str, Any]) -> T:
        """An object from plain values. Without a slug it is made of the name. Raises `BadObject` naming the field."""
        plain = _plain(fields)
        if not plain.get("slug") and plain.get("name") and isinstance(plain.get("name"), str):
            plain = {**plain, "slug": slugified(plain["name"])}
        try:
            return msgspec.convert(plain, self.type)
        except msgspec.ValidationError as error:
            slug = plain.get("slug")
            known = ", ".join(self.type.__struct_fields__)  # type: ignore[attr-defined]  # every kind is a Struct
            hint = f"; fields are {known}" if "unknown field" in str(error) else ""
            raise BadObject(f"{self.kind}{f' {slug!r}' if slug else ''} does not fit: {error}{hint}") from error

    def checked(self, fields: Mapping[str, Any]) -> T:
        """As `read`, and checked as far as it tells by itself. Raises `BadObject`."""
        value = self.read(fields)
        self._store.check(value)
        return value

    async def refresh(self) -> None:
        """Read all objects anew, if they are not followed. Raises `BackendUnavailable`."""
        if self._refresh is not None:
            await self._refresh()

    def _none(self, reference: str, namespace: str) -> str:
        where = f" in namespace {namespace!r}" if namespace else ""
        return f"there is no {self.kind} {reference[:100]!r}{where}"


def _plain(value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(value)
    return plain


def _with(value: T, **fields: Any) -> T:
    changed: T = msgspec.structs.replace(value, **fields)  # type: ignore[type-var]  # every kind is a Struct
    return changed


def _is_slug(value: object) -> bool:
    return value is None or isinstance(value, str)


def _whole(value: Any, fields: Mapping[str, Any]) -> Any:
    return _with(value, **fields) if fields else value
