"""From a job to a task, and back: function `run_task`, its arguments a prompt or a task's fields."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

import arq.jobs
import msgspec

from queue_backends.arq.serializing import deserializer, serializer
from queue_backends.errors import InvalidTask
from queue_backends.messages import (
    RESERVED_META,
    JsonObject,
    Task,
    check_task,
    encode_json,
    entry_count,
    task_from_entry,
)

FUNCTION = "run_task"
MOST_TRIES = 1_000_000_000
_LATEST_MS = 253_402_300_800_000
_NEVER_SENT = ("id", "attempt")
"""Fields of a task that arq keeps beside the job, not in it."""


class Job(NamedTuple):
    """What an engine has enqueued."""

    function: str
    args: tuple[Any, ...]
    kwargs: JsonObject
    job_try: int
    """The number that the first try shall have (arq's `_job_try`); 0 if the engine did not say."""
    enqueued_ms: int


def job_of(task: Task) -> bytes:
    """A task as the job that arq's client would make of it, except for its id."""
    fields = msgspec.to_builtins(task)
    kwargs = {name: value for name, value in fields.items() if name not in _NEVER_SENT}
    enqueued_ms = time.time_ns() // 1_000_000
    data: bytes = arq.jobs.serialize_job(FUNCTION, (), kwargs, None, enqueued_ms, serializer=serializer)
    return data


def read_job(data: bytes) -> Job:
    """What the queue holds. Raises `InvalidTask` with the reason if it is no job."""
    try:
        function, args, kwargs, job_try, enqueued_ms = arq.jobs.deserialize_job_raw(data, deserializer=deserializer)
    except arq.jobs.DeserializationError as error:
        raise InvalidTask(_reason(data, error)) from error
    if not (isinstance(function, str) and isinstance(args, tuple) and isinstance(kwargs, dict)):
        raise InvalidTask("the job is none of arq's: 'f' must be a name, 'a' a list, 'k' an object")
    is_number = isinstance(job_try, int) and 0 <= job_try <= MOST_TRIES
    has_time = isinstance(enqueued_ms, int) and 0 <= enqueued_ms < _LATEST_MS
    return Job(function, args, kwargs, job_try if is_number else 0, enqueued_ms if has_time else 0)


def _reason(data: bytes, error: Exception) -> str:
    cause = error.__cause__
    if isinstance(cause, KeyError):
        return f"the job has no field {cause.args[0]!r}: it must be as arq's client writes it"
    if cause is not None and isinstance(cause.__cause__, UnicodeDecodeError) and (name := _broken_field(data)):
        return f"field {name!r} cannot be read: {cause.__cause__.reason}: it must be UTF-8 text"
    return str(cause or error)


def _broken_field(data: bytes) -> str:
    """The argument whose text is no UTF-8; empty if it cannot be found."""
    try:
        kwargs = json.loads(data.decode(errors="surrogateescape"))["k"]
        return next((name for name, value in kwargs.items() if not _is_text(name) or not _is_text(value)), "")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ""


def _is_text(value: object) -> bool:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def task_of(task_id: str, job: Job, *, tries: int, max_prompt_bytes: int) -> Task:
    """The task of a job; `tries` counts the present one. Raises `InvalidTask`."""
    if job.function != FUNCTION:
        raise InvalidTask(f"function {job.function[:200]!r} not found: the jobs that Shoal runs call {FUNCTION!r}")
    fields = entry_fields(job)
    failures = entry_count(fields, "attempt") + max(tries - 1, 0)
    task = task_from_entry(task_id, fields, attempt=failures)
    if not task.enqueued_at and job.enqueued_ms:
        moment = datetime.fromtimestamp(job.enqueued_ms / 1000, UTC)
        task = msgspec.structs.replace(task, enqueued_at=moment.strftime("%Y-%m-%dT%H:%M:%SZ"))
    return check_task(task, max_prompt_bytes=max_prompt_bytes)


def entry_fields(job: Job) -> dict[str, str]:
    """A job's arguments as a queue entry's fields, all text. Raises `InvalidTask` for what cannot be one."""
    arguments = _arguments(job)
    meta = arguments.pop("meta", None) or {}
    if not isinstance(meta, dict):
        raise InvalidTask(f"argument 'meta' is {type(meta).__name__}: it must be an object of texts")
    fields = {name: _as_text(value) for name, value in arguments.items() if value is not None}
    for name, value in meta.items():
        if name in RESERVED_META:
            raise InvalidTask(f"meta key {name!r} is a field of the task itself: pass it as an argument, or rename it")
        fields[name] = _as_text(value)
    return fields


def _arguments(job: Job) -> JsonObject:
    """Positional and named arguments as one: the only positional one is the prompt, or an object of all fields."""
    if not job.args:
        return dict(job.kwargs)
    first = job.args[0]
    named = first if isinstance(first, dict) else {"prompt": first}
    if len(job.args) > 1:
        raise InvalidTask(f"{FUNCTION} takes one positional argument, the prompt, and {len(job.args)} were given")
    if twice := sorted(named.keys() & job.kwargs.keys()):
        raise InvalidTask(f"argument {twice[0]!r} was given twice: leave one of them out")
    return {**named, **job.kwargs}


def _as_text(value: object) -> str:
    """Text as it stands; anything else as JSON, which is how entries have histories, overrides and numbers."""
    return value if isinstance(value, str) else encode_json(value).decode()
