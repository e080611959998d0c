"""Protocol Buffers' binary form, for messages that are plain: texts, bytes, numbers, truth values, text maps, messages.

A message is a frozen Struct whose fields have the numbers 1, 2, 3, … in the order of their declaration. Generated code
would tie an installation to one release of the protobuf runtime, for these few messages.
Source: the encoding guide of Protocol Buffers, https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import functools
import struct
import types
import typing
from collections.abc import Iterator
from typing import Any, TypeVar

from msgspec import Struct

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIRE_TYPES = {int: _VARINT, bool: _VARINT, float: _FIXED64}
"""All others are `_BYTES`."""
_MOST_VARINT_BYTES = 10
_64_BITS = (1 << 64) - 1


class MalformedMessage(ValueError):
    """Bytes that are no such message."""


class Message(Struct, frozen=True, kw_only=True):
    """What this module encodes and decodes. Every field has a default, as in proto3."""


M = TypeVar("M", bound=Message)


class _Field(typing.NamedTuple):
    name: str
    number: int
    kind: Any
    """`str`, `bytes`, `int`, `bool`, `float` (a double), `dict` for a map of texts, or a message's class."""
    is_repeated: bool


def encode(message: Message) -> bytes:
    """The message as it travels. Fields that have their default are left out; a message that is there never is."""
    out = bytearray()
    for field in _fields(type(message)):
        value = getattr(message, field.name)
        if field.kind is dict:
            for key, item in value.items():
                _put_bytes(out, field.number, _map_entry(key, item))
        elif field.is_repeated:
            for item in value:
                _put_bytes(out, field.number, _bytes_of(item))
        elif field.kind in (int, bool):
            if value:
                _put_varint(out, field.number << 3 | _VARINT)
                _put_varint(out, int(value) & _64_BITS)
        elif field.kind is float:
            if value:
                _put_varint(out, field.number << 3 | _FIXED64)
                out += struct.pack("<d", value)
        elif isinstance(value, Message) or value:
            _put_bytes(out, field.number, _bytes_of(value))
    return bytes(out)


def decode(kind: type[M], data: bytes) -> M:
    """The message that these bytes are. Unknown fields are skipped. Raises `MalformedMessage`."""
    known = {field.number: field for field in _fields(kind)}
    values: dict[str, Any] = {}
    for number, wire, raw in _entries(data):
        field = known.get(number)
        if field is None:
            continue
        if wire != _WIRE_TYPES.get(field.kind, _BYTES):
            raise MalformedMessage(f"{kind.__name__}.{field.name} has wire type {wire}")
        value = _value(field.kind, raw)
        if field.kind is dict:
            values.setdefault(field.name, {}).update(value)
        elif field.is_repeated:
            values.setdefault(field.name, []).append(value)
        else:
            values[field.name] = value
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


@functools.cache
def _fields(kind: type[Message]) -> tuple[_Field, ...]:
    hints = typing.get_type_hints(kind)
    return tuple(_field(name, number, hints[name]) for number, name in enumerate(kind.__struct_fields__, start=1))


def _field(name: str, number: int, hint: Any) -> _Field:
    origin = typing.get_origin(hint)
    if origin is tuple:
        return _Field(name, number, typing.get_args(hint)[0], is_repeated=True)
    if origin is dict:
        return _Field(name, number, dict, is_repeated=False)
    if origin is types.UnionType or origin is typing.Union:
        return _Field(name, number, typing.get_args(hint)[0], is_repeated=False)
    return _Field(name, number, hint, is_repeated=False)


def _bytes_of(value: str | bytes | Message) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return encode(value) if isinstance(value, Message) else value


def _map_entry(key: str, value: str) -> bytes:
    entry = bytearray()
    _put_bytes(entry, 1, key.encode())
    _put_bytes(entry, 2, value.encode())
    return bytes(entry)


def _put_bytes(out: bytearray, number: int, data: bytes) -> None:
    _put_varint(out, number << 3 | _BYTES)
    _put_varint(out, len(data))
    out += data


def _put_varint(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _entries(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Field number, wire type and raw value of each field, in order."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            raw, position = _varint(data, position)
            yield number, wire, raw
            continue
        if wire == _BYTES:
            size, position = _varint(data, position)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise MalformedMessage(f"field {number} has the unknown wire type {wire}")
        if position + size > len(data):
            raise MalformedMessage(f"field {number} is cut off")
        yield number, wire, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    number = 0
    for index in range(_MOST_VARINT_BYTES):
        if position + index >= len(data):
            break
        byte = data[position + index]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return number & _64_BITS, position + index + 1
    raise MalformedMessage("a number is cut off or too long")


def _value(kind: Any, raw: Any) -> Any:
    if kind is int:
        return raw - (1 << 64) if raw >> 63 else raw
    if kind is bool:
        return bool(raw)
    if kind is float:
        return struct.unpack("<d", raw)[0]
    if kind is bytes:
        return bytes(raw)
    if kind is str:
        return _text(raw)
    if kind is dict:
        entry = {number: _text(item) for number, wire, item in _entries(raw) if wire == _BYTES}
        return {entry.get(1, ""): entry.get(2, "")}
    return decode(kind, raw)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise MalformedMessage(f"a text is not UTF-8: {error}") from error
