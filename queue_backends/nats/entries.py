"""A task as it lies in a lane: a JSON object of its fields, and headers that are the queue's own.

An engine in any language submits by publishing such an object to `<queue>.tasks.<high|normal|low>.<id>`, where it
chooses the id: `{"prompt": "Say hello."}` is enough. Values that are not text are read as the JSON they are.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from queue_backends.errors import InvalidTask
from queue_backends.interfaces import BackendOptions, Spent
from queue_backends.messages import (
    MOST_VALUE_CHARS,
    Task,
    check_task,
    encode_json,
    entry_count,
    task_from_entry,
    task_to_entry,
)
from queue_backends.nats.ledger import Stored

RUN, NEXT_ATTEMPT, SPENT, DUE = "Shoal-Run", "Shoal-Next-Attempt", "Shoal-Spent", "Shoal-Due"
_UNPRINTABLE = re.compile("[\ud800-\udfff]")

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_spent = msgspec.json.Decoder(Spent).decode


class Entry(Struct, frozen=True, kw_only=True):
    """What the queue itself notes of an entry."""

    run: int = 0
    next_attempt: int = 0
    spent: Spent = Spent()
    due_at: float | None = None

    def headers(self) -> dict[str, str]:
        """As they travel; a new task has none."""
        headers: dict[str, str] = {}
        if self.run:
            headers[RUN] = str(self.run)
        if self.next_attempt:
            headers[NEXT_ATTEMPT] = str(self.next_attempt)
        if self.spent != _NOTHING_SPENT:
            headers[SPENT] = msgspec.json.encode(self.spent).decode()
        if self.due_at is not None:
            headers[DUE] = repr(self.due_at)
        return headers


_NOTHING_SPENT = Spent()


def entry_of(stored: Stored) -> Entry:
    """The queue's own notes. What a foreign engine may have put there instead counts as absent."""
    headers = stored.headers
    try:
        return Entry(
            run=int(headers.get(RUN, "0")),
            next_attempt=int(headers.get(NEXT_ATTEMPT, "0")),
            spent=_decode_spent(headers[SPENT]) if SPENT in headers else _NOTHING_SPENT,
            due_at=float(headers[DUE]) if DUE in headers else None,
        )
    except (ValueError, msgspec.DecodeError):
        return Entry()


def own_headers(stored: Stored) -> dict[str, str]:
    """The headers that are the queue's own, as they stand."""
    return {name: value for name, value in stored.headers.items() if name.startswith("Shoal-")}


def encode_task(task: Task, enqueued_at: str = "") -> bytes:
    """The body of a task's entry."""
    return encode_json(task_to_entry(task, enqueued_at))


def decode_fields(data: bytes) -> dict[str, str]:
    """The fields of an entry, as text. Raises `InvalidTask` with the reason."""
    try:
        fields = _decode_object(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        fields = _decode_slowly(data)
    return {name: value if isinstance(value, str) else encode_json(value).decode() for name, value in fields.items()}


def _decode_slowly(data: bytes) -> dict[str, Any]:
    """Find out what is wrong with it: the decoder that is fast does not say which field."""
    try:
        fields = json.loads(data.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise InvalidTask(
            f"the entry cannot be read: {str(error)[:MOST_VALUE_CHARS]}: it must be a JSON object"
        ) from error
    if not isinstance(fields, dict):
        raise InvalidTask(f'the entry is a JSON {type(fields).__name__}: it must be an object, such as {{"prompt": …}}')
    for name, value in fields.items():
        if _UNPRINTABLE.search(name) or (isinstance(value, str) and _UNPRINTABLE.search(value)):
            shown = repr(name.encode("utf-8", "surrogateescape").decode(errors="backslashreplace"))[:MOST_VALUE_CHARS]
            raise InvalidTask(f"field {shown} cannot be read: it must be UTF-8 text")
    return fields


def task_of(task_id: str, data: bytes, *, crashes: int = 0, options: BackendOptions | None = None) -> Task:
    """The task of an entry; `crashes` are deliveries that ended without an answer. Raises `InvalidTask`."""
    fields = decode_fields(data)
    failures = entry_count(fields, "attempt")
    task = task_from_entry(task_id, fields, attempt=failures + crashes)
    return check_task(task, max_prompt_bytes=options.max_prompt_bytes) if options else task


def shown_task(task_id: str, data: bytes, *, crashes: int = 0) -> Task:
    """The task of an entry that nobody may have read yet: of an unreadable one only what can be shown."""
    try:
        return task_of(task_id, data, crashes=crashes)
    except InvalidTask:
        return Task(id=task_id, prompt="")


def as_brought_back(data: bytes) -> bytes:
    """A dead letter's entry as that of a task that was never tried; what cannot be read stays as it is."""
    try:
        task = task_of("", data)
    except InvalidTask:
        return data
    return encode_task(replace(task, attempt=0))
