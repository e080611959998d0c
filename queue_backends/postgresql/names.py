"""Names as they stand in the tables: ids of tasks, and whatever text users choose for keys, logs and counters."""

from __future__ import annotations

import hashlib
import os
import time
from uuid import UUID

from queue_backends.interfaces import Delivery

LONGEST_KEY = 1000
"""Bytes. An index takes somewhat more than 2,700 in a row, which may be of two such names."""
_KEPT = 900
_RANDOM_BITS = 74


def new_id() -> UUID:
    """A version 7 UUID: milliseconds first, so that ids of one time stand together in an index (RFC 9562)."""
    noise = int.from_bytes(os.urandom(10)) & ((1 << _RANDOM_BITS) - 1)
    high, low = noise >> 62, noise & ((1 << 62) - 1)
    milliseconds = time.time_ns() // 1_000_000
    return UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0x2 << 62 | low)


def id_of(text: str) -> UUID | None:
    """A task's id; None for a text that can be none of ours."""
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text else None  # each task has one spelling


def fence_of(delivery: Delivery) -> tuple[UUID | None, UUID | None]:
    """What a write of this delivery's holder is checked by."""
    return id_of(delivery.task.id), id_of(delivery.token)


def key_of(text: str) -> bytes:
    """A name as an index has it: a long one is its beginning and its hash, so that prefixes still work."""
    name = text.encode()
    return name if len(name) <= LONGEST_KEY else name[:_KEPT] + b"\x00" + hashlib.sha256(name).digest()


def label_of(text: str) -> bytes | None:
    """The whole name, if its key is not."""
    name = text.encode()
    return name if len(name) > LONGEST_KEY else None


def name_of(key: bytes, label: bytes | None) -> str:
    """The name that `key_of` and `label_of` were made from."""
    return (key if label is None else label).decode()
