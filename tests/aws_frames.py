"""Messages of AWS's binary event stream, made and cut for tests."""

from __future__ import annotations

import binascii
import struct
from typing import Any

import msgspec


def header(name: str, kind: int, value: bytes) -> bytes:
    """One header; kind 7 is text."""
    length = struct.pack(">H", len(value)) if kind in (6, 7) else b""
    return bytes([len(name)]) + name.encode() + bytes([kind]) + length + value


def message(headers: bytes, payload: bytes) -> bytes:
    """A whole message with the right checksums."""
    start = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    body = start + struct.pack(">I", binascii.crc32(start)) + headers + payload
    return body + struct.pack(">I", binascii.crc32(body))


def event(kind: str, payload: Any, *, exception: bool = False) -> bytes:
    """An event, or an exception, with JSON, or bytes that should be."""
    names = {":message-type": "exception", ":exception-type": kind} if exception else {":message-type": "event"}
    if not exception:
        names[":event-type"] = kind
    headers = b"".join(header(name, 7, value.encode()) for name, value in names.items())
    return message(headers, payload if isinstance(payload, bytes) else msgspec.json.encode(payload))


def frames(stream: bytes) -> tuple[bytes, ...]:
    """The messages of a stream."""
    found = []
    while stream:
        (length,) = struct.unpack_from(">I", stream)
        found.append(stream[:length])
        stream = stream[length:]
    return tuple(found)
