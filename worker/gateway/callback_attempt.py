"""One try to deliver a callback: what is sent, and what follows from the answer."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

from msgspec.structs import replace

from queue_backends import TaskResult, TaskState
from queue_backends.messages import RUN_CANCELLED, encode_json
from worker.deliveries.trying import Fate, Patience, Request, tried
from worker.gateway.callback_signature import signed_headers
from worker.gateway.callbacks import Callback, CallbackEvent, CallbackState
from worker.gateway.ownership import TaskRecord
from worker.net_guard import GuardedHttp
from worker.version import version

MOST_OUTPUT_CHARS: Final = 256 * 1024

_EVENTS: Final = {
    TaskState.SUCCEEDED: CallbackEvent.SUCCEEDED,
    TaskState.FAILED: CallbackEvent.FAILED,
    TaskState.CANCELLED: CallbackEvent.CANCELLED,
}
_STATES: Final = {
    Fate.DELIVERED: CallbackState.DELIVERED,
    Fate.AGAIN: CallbackState.PENDING,
    Fate.DEAD: CallbackState.DEAD,
}


def state_of(result: TaskResult) -> TaskState:
    """How a task ended."""
    if not result.error:
        return TaskState.SUCCEEDED
    return TaskState.CANCELLED if result.error == RUN_CANCELLED else TaskState.FAILED


def wants(callback: Callback, result: TaskResult) -> bool:
    """Whether this end was asked for."""
    return not callback.events or _EVENTS[state_of(result)] in callback.events


def body_of(result: TaskResult, record: TaskRecord | None) -> bytes:
    """What is sent: type, moment and the task. An output too long for a message is cut, and said to be."""
    state = state_of(result)
    task: dict[str, object] = {"id": result.task_id, "state": state.value}
    for name in ("agent", "tenant", "session_id", "conversation_id"):
        if record is not None and getattr(record, name):
            task[name] = getattr(record, name)
    told: dict[str, object] = {
        "output": result.output[:MOST_OUTPUT_CHARS],
        "error": result.error,
        "usage": result.usage,
        "cost_usd": result.cost_usd,
        "finished_at": result.finished_at,
        "stop_reason": result.stop_reason,
    }
    if len(result.output) > MOST_OUTPUT_CHARS:
        told["output_is_cut"] = True
    elif result.structured is not None:
        told["structured"] = result.structured
    moment = datetime.fromtimestamp(result.finished_at or time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return encode_json({"type": _EVENTS[state].value, "timestamp": moment, "data": {**task, "result": told}})


async def attempt(callback: Callback, body: bytes, secret: str, http: GuardedHttp, patience: Patience) -> Callback:
    """Try once; the callback as it stands then. Raises nothing but what is a fault of ours."""
    now = time.time()
    headers = {
        **signed_headers(secret, callback.id, int(now), body),
        "content-type": "application/json",
        "user-agent": f"shoal/{version()}",
    }
    request = Request(url=callback.url, headers=headers, content=body)
    after = await tried(request, http, patience, callback.tries + 1)
    return replace(
        callback,
        state=_STATES[after.fate],
        tries=callback.tries + 1,
        last_tried_at=now,
        last_status=after.status,
        last_error=after.error,
        next_try_at=after.next_try_at,
    )


def gave_up(callback: Callback, why: str) -> Callback:
    """The callback as one that is not tried any more."""
    return replace(callback, state=CallbackState.DEAD, last_error=why, next_try_at=None)
