"""Arrays as parameters, in PostgreSQL's binary form.

The driver's own arrays are text whose types depend on their items; so the same statement would be prepared anew for an
empty list, for small and for large numbers.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID

from psycopg.adapt import Dumper
from psycopg.pq import Format

_LENGTH = struct.Struct("!i")
_INT = struct.Struct("!q")
_FLOAT = struct.Struct("!d")
_HEAD = struct.Struct("!iiIii")
_EMPTY = struct.Struct("!iiI")
_NULL = _LENGTH.pack(-1)
_WORD = _LENGTH.pack(8)
_TRUE, _FALSE = _LENGTH.pack(1) + b"\x01", _LENGTH.pack(1) + b"\x00"
_UUID = _LENGTH.pack(16)


class Array(ABC):
    """Items of one type, each of which may be None."""

    item_oid: ClassVar[int]
    array_oid: ClassVar[int]

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items

    def encoded(self) -> bytes:
        """As the server reads it."""
        if not self.items:
            return _EMPTY.pack(0, 0, self.item_oid)
        parts = [_HEAD.pack(1, 1, self.item_oid, len(self.items), 1)]
        parts += [_NULL if item is None else self.item(item) for item in self.items]
        return b"".join(parts)

    @staticmethod
    @abstractmethod
    def item(value: Any) -> bytes:
        """One item, with its length in front."""


class Uuids(Array):
    """`uuid[]`."""

    item_oid, array_oid = 2950, 2951

    @staticmethod
    def item(value: UUID) -> bytes:
        """Sixteen bytes."""
        return _UUID + value.bytes


class Bytes(Array):
    """`bytea[]`."""

    item_oid, array_oid = 17, 1001

    @staticmethod
    def item(value: bytes) -> bytes:
        """As they are."""
        return _LENGTH.pack(len(value)) + value


class Texts(Array):
    """`text[]`."""

    item_oid, array_oid = 25, 1009

    @staticmethod
    def item(value: str) -> bytes:
        """UTF-8."""
        return Bytes.item(value.encode())


class Ints(Array):
    """`int8[]`."""

    item_oid, array_oid = 20, 1016

    @staticmethod
    def item(value: int) -> bytes:
        """Eight bytes. Raises `struct.error` for a number that they do not hold."""
        return _WORD + _INT.pack(value)


class Floats(Array):
    """`float8[]`."""

    item_oid, array_oid = 701, 1022

    @staticmethod
    def item(value: float) -> bytes:
        """Eight bytes."""
        return _WORD + _FLOAT.pack(value)


class Bools(Array):
    """`bool[]`."""

    item_oid, array_oid = 16, 1000

    @staticmethod
    def item(value: bool) -> bytes:
        """One byte."""
        return _TRUE if value else _FALSE


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Array) -> bytes:
        return obj.encoded()


def _dumper(kind: type[Array]) -> type[Dumper]:
    return type(f"{kind.__name__}Dumper", (_ArrayDumper,), {"oid": kind.array_oid})


class _IntDumper(Dumper):
    """Every whole number as `int8`, for the same reason."""

    format = Format.BINARY
    oid = Ints.item_oid

    def dump(self, obj: int) -> bytes:
        return _INT.pack(obj)


DUMPERS: dict[type, type[Dumper]] = {kind: _dumper(kind) for kind in (Uuids, Bytes, Texts, Ints, Floats, Bools)} | {
    int: _IntDumper
}
"""What a connection, or a cursor, must know to take these parameters."""
