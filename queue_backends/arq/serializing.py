"""Jobs and results as JSON: what both ends of an arq queue use in the place of pickle.

    pool = await arq.create_pool(settings, job_serializer=serializer, job_deserializer=deserializer)

A pickle is refused: to read one is to run whatever code its author has put there.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from queue_backends.messages import RUN_CANCELLED, TaskResult
from queue_backends.redis.wire import decode_result

CANCELLED_KIND = "CancelledError"
FAILED_KIND = "TaskFailed"
_PICKLE_MARK = b"\x80"
"""The first byte of every pickle since protocol 2, and of no JSON text."""


class UnreadableJob(ValueError):
    """What stands in the queue is no job that we read."""


class TaskFailed(Exception):
    """A task ended with an error, which is this exception's text. `Job.result()` raises it in the engine.

    `kind` is the type of the exception that ended it, where a worker of arq's own has run the job.
    """

    def __init__(self, error: str, *, kind: str = FAILED_KIND, task_result: TaskResult | None = None) -> None:
        super().__init__(error)
        self.kind = kind
        self.task_result = task_result
        """All that is known of its end: usage, cost, what had been said. None if no Shoal worker has run it."""


class Answer(str):
    """What `Job.result()` returns: the answer's text, which has the whole result beside it."""

    task_result: TaskResult

    def __new__(cls, text: str, task_result: TaskResult) -> Answer:
        """The text of a result."""
        answer = super().__new__(cls, text)
        answer.task_result = task_result
        return answer

    def __getnewargs__(self) -> tuple[str, TaskResult]:  # type: ignore[override]  # as `__new__` here takes them
        """For copies."""
        return str(self), self.task_result


def serializer(data: dict[str, Any]) -> bytes:
    """arq's `job_serializer`: a job, or a result, as JSON. An exception becomes its type's name and its text.

    Raises `TypeError` for what JSON cannot say; arq makes a `SerializationError` of it.
    """
    if isinstance(failure := data.get("r"), BaseException):
        kind = type(failure).__name__
        data = {**data, "r": str(failure) or kind, "e": kind}
    return msgspec.json.encode(data, enc_hook=_plain)


def _plain(value: Any) -> str:
    if isinstance(value, str):  # an `Answer`, say, that is the prompt of the next job
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: pass text, numbers, lists or objects")


def deserializer(data: bytes) -> dict[str, Any]:
    """arq's `job_deserializer`: a job, or a result, from JSON. The result of a failed one is the exception to raise.

    Raises `UnreadableJob`; arq makes a `DeserializationError` of it.
    """
    decoded = _decoded(data)
    if isinstance(decoded.get("a"), list):
        decoded["a"] = tuple(decoded["a"])
    if "s" in decoded:
        decoded["r"] = _outcome(decoded)
    return decoded


def _decoded(data: bytes) -> dict[str, Any]:
    if data.startswith(_PICKLE_MARK):
        raise UnreadableJob(
            "the job is a pickle, and a pickle can run any code in whoever reads it: it must be JSON: create the pool "
            "with job_serializer=queue_backends.arq.serializer and job_deserializer=queue_backends.arq.deserializer"
        )
    try:
        decoded = msgspec.json.decode(data)
    except (ValueError, RecursionError) as error:  # msgspec.DecodeError and UnicodeDecodeError are ValueErrors
        raise UnreadableJob(f"the job cannot be read: {error}: it must be JSON in UTF-8") from error
    if not isinstance(decoded, dict):
        raise UnreadableJob(f"the job is JSON of type {type(decoded).__name__}: it must be an object with f, a and k")
    return decoded


def _outcome(result: dict[str, Any]) -> Any:
    """What arq returns or raises for a result."""
    value, ours = result.get("r"), result.get("shoal")
    whole = None
    if ours is not None:
        whole = decode_result(str(result.get("id", "")), msgspec.json.encode(ours))
    if result["s"]:
        if whole is None:
            return value
        text = str(value)
        return Answer(text, msgspec.structs.replace(whole, output=text))
    kind = str(result.get("e", FAILED_KIND))
    if kind == CANCELLED_KIND:
        return asyncio.CancelledError(RUN_CANCELLED)
    return TaskFailed(str(value), kind=kind, task_result=whole)
