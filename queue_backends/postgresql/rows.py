"""From rows to tasks, results and letters, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from queue_backends.errors import InvalidTask
from queue_backends.interfaces import ATTEMPTS_PER_DELIVERY, BackendOptions, Delivery, Spent
from queue_backends.messages import (
    MOST_VALUE_CHARS,
    RUN_CANCELLED,
    Priority,
    Task,
    TaskResult,
    check_task,
    entry_count,
    task_from_entry,
)

LANES = (Priority.HIGH, Priority.NORMAL, Priority.LOW)
"""From lane 1 on; lane 0 is for what was brought back."""

_texts = msgspec.json.Decoder(dict[str, str]).decode
_result = msgspec.json.Decoder(TaskResult).decode
_spent = msgspec.json.Decoder(Spent).decode
_encode = msgspec.json.Encoder().encode


class TaskRow(NamedTuple):
    """A claimed task, as the statements return it."""

    id: UUID
    entry: bytes
    entry_no: int
    attempt: int | None
    next_attempt: int
    fresh: bool
    deliveries: int
    cancel_asked: bool

    @property
    def entry_id(self) -> str:
        """The address of this delivery's entry: another one after each return to the queue."""
        return f"{self.id}/{self.entry_no}"


def lane_of(priority: Priority) -> int:
    """Where tasks of this priority wait."""
    return LANES.index(priority) + 1


def state_of(result: TaskResult) -> int:
    """How a result is listed."""
    if result.error == RUN_CANCELLED:
        return 2
    return 0 if result.ok else 1


def encode_result(result: TaskResult) -> bytes:
    """As it is kept."""
    return _encode(result)


def decode_result(data: bytes) -> TaskResult:
    """As it was kept."""
    return _result(data)


def encode_spent(spent: Spent) -> bytes:
    """As it is kept."""
    return _encode(spent)


def decode_spent(data: bytes | None) -> Spent:
    """As it was kept; nothing, if nothing was."""
    return _spent(data) if data else Spent()


def encode_entry(fields: Mapping[str, str]) -> bytes:
    """An entry as it is kept."""
    return _encode(fields)


def decode_entry(entry: bytes) -> dict[str, str]:
    """An entry's fields. Raises `InvalidTask` for what is no JSON object of texts, naming the field that is none."""
    try:
        return _texts(entry)
    except UnicodeDecodeError as error:
        raise _no_text(entry, error) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidTask(
            f"the entry cannot be read: {str(error)[:MOST_VALUE_CHARS]}: it must be a JSON object whose values are text"
        ) from error


def _no_text(entry: bytes, error: UnicodeDecodeError) -> InvalidTask:
    """Somebody has written bytes that are no UTF-8: in which field?"""
    try:
        fields = json.loads(entry.decode(errors="surrogateescape"))
        name = next(name for name, value in fields.items() if _is_broken(name) or _is_broken(value))
        shown = repr(name.encode(errors="backslashreplace").decode())[:MOST_VALUE_CHARS]
    except (ValueError, AttributeError, StopIteration, RecursionError):
        shown = "of the entry"
    return InvalidTask(f"field {shown} cannot be read: {error.reason}: it must be UTF-8 text")


def _is_broken(text: Any) -> bool:
    try:
        str(text).encode()
    except UnicodeEncodeError:
        return True
    return False


def task_of(row: TaskRow, *, crashes: int, options: BackendOptions | None = None) -> Task:
    """The task of a row; `crashes` are deliveries that ended without an answer. Raises `InvalidTask`."""
    fields = decode_entry(row.entry)
    failures = entry_count(fields, "attempt") if row.attempt is None else row.attempt
    task = task_from_entry(str(row.id), fields, attempt=failures + crashes)
    return check_task(task, max_prompt_bytes=options.max_prompt_bytes) if options else task


def delivery_of(row: TaskRow, token: UUID, worker: str, options: BackendOptions) -> Delivery:
    """A claimed row as a delivery. Raises `InvalidTask`."""
    crashes = row.deliveries - 1
    task = task_of(row, crashes=crashes, options=options)
    return Delivery(
        task=task,
        entry_id=row.entry_id,
        token=str(token),
        redeliveries=crashes,
        first=row.fresh and task.attempt == 0,
        next_attempt=row.next_attempt + crashes * ATTEMPTS_PER_DELIVERY,
        worker=worker,
    )


def unread_delivery(row: TaskRow, token: UUID, worker: str) -> Delivery:
    """A claimed row that cannot be read, so that it can be given up."""
    task = Task(id=str(row.id), prompt="", attempt=row.attempt or 0)
    first = row.fresh and row.deliveries == 1
    return Delivery(
        task=task,
        entry_id=row.entry_id,
        token=str(token),
        first=first,
        next_attempt=row.next_attempt,
        worker=worker,
    )
