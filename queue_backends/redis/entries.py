"""From a stream's entry to a delivery."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from queue_backends.errors import InvalidTask
from queue_backends.interfaces import ATTEMPTS_PER_DELIVERY, BackendOptions, Delivery
from queue_backends.messages import Task, check_task, task_from_entry
from queue_backends.redis.wire import Fence, token_of

_texts = msgspec.msgpack.Decoder(list[str]).decode

RawFields = Sequence[bytes]
"""An entry's names and values in turn, as the server sends them."""


def pairs(raw: RawFields) -> Iterable[tuple[bytes, bytes]]:
    """Names with their values."""
    return zip(raw[::2], raw[1::2], strict=True)


def unpacked(packed: bytes | None) -> RawFields:
    """Fields that a script has packed; none if they were no text."""
    try:
        return [text.encode() for text in _texts(packed)] if packed else []
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []


def text_fields(raw: RawFields) -> dict[str, str]:
    """Fields as text. Raises `InvalidTask` for what is no UTF-8."""
    try:
        return {name.decode(): value.decode() for name, value in pairs(raw)}
    except UnicodeDecodeError as error:
        raise InvalidTask(f"a field is not UTF-8 text: {error}") from error


def task_id_of(entry_id: str, raw: RawFields) -> str:
    """The id of the chain of entries that this one belongs to."""
    for name, value in pairs(raw):
        if name == b"original_task_id":
            return value.decode(errors="replace")
    return entry_id


def task_of(entry_id: str, raw: RawFields, *, crashes: int, options: BackendOptions | None = None) -> Task:
    """The task of an entry; `crashes` are deliveries that ended without an answer. Raises `InvalidTask`."""
    fields = text_fields(raw)
    failures = fields.get("attempt", "") or "0"
    if not failures.isdigit():
        raise InvalidTask(f"field 'attempt' is {failures!r}: it counts failed attempts, so it must be a whole number")
    task = task_from_entry(fields.get("original_task_id", "") or entry_id, fields, attempt=int(failures) + crashes)
    return check_task(task, max_prompt_bytes=options.max_prompt_bytes) if options else task


def delivery_of(fence: Fence, raw: RawFields, options: BackendOptions) -> Delivery:
    """A claimed entry as a delivery. Raises `InvalidTask`."""
    crashes = fence.deliveries - 1
    task = task_of(fence.entry, raw, crashes=crashes, options=options)
    next_attempt = next((int(value) for name, value in pairs(raw) if name == b"next_attempt" and value.isdigit()), 0)
    return Delivery(
        task=task,
        entry_id=fence.entry,
        token=token_of(fence),
        redeliveries=crashes,
        # Ids are unique per lane only: an entry that was moved may have got its task's own id again.
        first=task.attempt == 0 and not any(name == b"original_task_id" for name, _ in pairs(raw)),
        next_attempt=next_attempt + crashes * ATTEMPTS_PER_DELIVERY,
        worker=fence.consumer,
    )


def flat(entry: Mapping[str, Any]) -> list[str]:
    """Fields as the scripts take them."""
    return [part for pair in entry.items() for part in pair]
