"""Results: what our scripts put at the end of a job's JSON, and how it is read again."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from queue_backends.arq.serializing import CANCELLED_KIND, FAILED_KIND
from queue_backends.messages import RUN_CANCELLED, TaskResult, encode_json
from queue_backends.redis.wire import decode_result, encode_result

Ending = tuple[bool, str, str, str]
"""Whether it succeeded, arq's result as JSON, the kind of error, and our own result as JSON."""


class StoredResult(Struct):
    """`arq:result:<id>`, as far as we read it."""

    s: bool
    r: Any = None
    e: str = FAILED_KIND
    ft: int = 0
    """When it finished, Unix milliseconds."""
    shoal: msgspec.Raw = msgspec.Raw()
    """Our own result, without the output where that is arq's result. Missing if a worker of arq's own ran the job."""


_decode = msgspec.json.Decoder(StoredResult).decode


def ending_of(result: TaskResult) -> Ending:
    """How a result is written. For arq a success is the answer's text, a failure the error's."""
    if result.ok:
        return True, encode_json(result.output).decode(), "", encode_result(replace(result, output=""))
    kind = CANCELLED_KIND if result.error == RUN_CANCELLED else FAILED_KIND
    return False, encode_json(result.error).decode(), kind, encode_result(result)


def result_of(task_id: str, data: bytes) -> TaskResult:
    """A stored result, ours or arq's own. One that cannot be read becomes a result that says so."""
    try:
        stored = _decode(data)
    except (ValueError, RecursionError) as error:  # msgspec.DecodeError and UnicodeDecodeError are ValueErrors
        reason = "it is a pickle" if data.startswith(b"\x80") else str(error)
        return TaskResult(task_id=task_id, error=f"the stored result cannot be read: {reason}")
    if stored.shoal:
        result = decode_result(task_id, bytes(stored.shoal))
        return replace(result, output=str(stored.r)) if stored.s else result
    finished_at = stored.ft / 1000
    if not stored.s:
        said = RUN_CANCELLED if stored.e == CANCELLED_KIND else str(stored.r or stored.e)
        return TaskResult(task_id=task_id, error=said, finished_at=finished_at)
    if isinstance(stored.r, str):
        return TaskResult(task_id=task_id, output=stored.r, finished_at=finished_at)
    output = encode_json(stored.r).decode()
    return TaskResult(task_id=task_id, output=output, structured=stored.r, finished_at=finished_at)
