"""From a stream's entry to a delivery."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from queue_backends.errors import InvalidTask
from queue_backends.interfaces import ATTEMPTS_PER_DELIVERY, BackendOptions, Delivery
from queue_backends.messages import MOST_VALUE_CHARS, Task, check_task, entry_count, task_from_entry
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
        fields = [text.encode() for text in _texts(packed)] if packed else []
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    return fields if len(fields) % 2 == 0 else []


def text_fields(raw: RawFields) -> dict[str, str]:
    """Fields as text. Raises `InvalidTask` for what is no UTF-8."""
    try:
        return {name.decode(): value.decode() for name, value in pairs(raw)}
    except UnicodeDecodeError as error:
        raise InvalidTask(f"field {_broken(raw)} cannot be read: {error.reason}: it must be UTF-8 text") from error


def _broken(raw: RawFields) -> str:
    """The first field whose name or value is no text."""
    for name, value in pairs(raw):
        try:
            name.decode(), value.decode()
        except UnicodeDecodeError:
            return repr(name.decode(errors="backslashreplace"))[:MOST_VALUE_CHARS]
    raise AssertionError("all fields are text")


def task_id_of(entry_id: str, raw: RawFields) -> str:
    """The id of the chain of entries that this one belongs to."""
    for name, value in pairs(raw):
        if name == b"original_task_id":
            return value.decode(errors="replace")
    return entry_id


def task_of(entry_id: str, raw: RawFields, *, crashes: int, options: BackendOptions | None = None) -> Task:
    """The task of an entry; `crashes` are deliveries that ended without an answer. Raises `InvalidTask`."""
    return _task_of(entry_id, text_fields(raw), crashes, options)


def _task_of(entry_id: str, fields: Mapping[str, str], crashes: int, options: BackendOptions | None) -> Task:
    if "unreadable" in fields and "prompt" not in fields:  # a script of ours has found it so
        raise InvalidTask(fields["unreadable"][:MOST_VALUE_CHARS])
    failures = entry_count(fields, "attempt")
    task = task_from_entry(fields.get("original_task_id", "") or entry_id, fields, attempt=failures + crashes)
    return check_task(task, max_prompt_bytes=options.max_prompt_bytes, is_delivered=True) if options else task


def delivery_of(fence: Fence, raw: RawFields, options: BackendOptions) -> Delivery:
    """A claimed entry as a delivery. Raises `InvalidTask`."""
    crashes = fence.deliveries - 1
    fields = text_fields(raw)
    task = _task_of(fence.entry, fields, crashes, options)
    next_attempt = entry_count(fields, "next_attempt")
    return Delivery(
        task=task,
        entry_id=fence.entry,
        token=token_of(fence),
        redeliveries=crashes,
        # Ids are unique per lane only: an entry that was moved may have got its task's own id again.
        first=task.attempt == 0 and "original_task_id" not in fields,
        next_attempt=next_attempt + crashes * ATTEMPTS_PER_DELIVERY,
        worker=fence.consumer,
    )
