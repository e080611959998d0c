"""One try to deliver a callback: what is sent, and what follows from the answer."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from providers import ProviderError
from providers.retry import retry_after_s
from queue_backends import TaskResult, TaskState
from queue_backends.messages import RUN_CANCELLED, encode_json
from worker.gateway.callback_signature import signed_headers
from worker.gateway.callbacks import Callback, CallbackEvent, CallbackState
from worker.gateway.ownership import TaskRecord
from worker.log import mask_text
from worker.net_guard import AddressRefused, GuardedHttp
from worker.version import version

MOST_ANSWER_BYTES: Final = 256 * 1024
MOST_OUTPUT_CHARS: Final = 256 * 1024
LONGEST_RETRY_AFTER_S: Final = 3600.0
_GONE: Final = 410

_EVENTS: Final = {
    TaskState.SUCCEEDED: CallbackEvent.SUCCEEDED,
    TaskState.FAILED: CallbackEvent.FAILED,
    TaskState.CANCELLED: CallbackEvent.CANCELLED,
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


class Patience(Struct, frozen=True, kw_only=True):
    """How long receivers are waited for."""

    again_after_s: tuple[float, ...] = (5, 30, 120, 600, 1800, 3600, 7200, 14_400, 21_600, 28_800)
    """After each failed try; about 21 hours in all. Then the callback is dead."""
    answer_within_s: float = 15.0


async def attempt(callback: Callback, body: bytes, secret: str, http: GuardedHttp, patience: Patience) -> Callback:
    """Try once; the callback as it stands then. Raises nothing but what is a fault of ours."""
    now = time.time()
    headers = {
        **signed_headers(secret, callback.id, int(now), body),
        "content-type": "application/json",
        "user-agent": f"shoal/{version()}",
    }
    tried = replace(callback, tries=callback.tries + 1, last_tried_at=now, last_status=None, last_error="")
    try:
        response = await http.request(
            "POST",
            callback.url,
            headers=headers,
            content=body,
            timeout_s=patience.answer_within_s,
            max_body_bytes=MOST_ANSWER_BYTES,
        )
    except AddressRefused as error:
        return gave_up(tried, str(error))
    except (ProviderError, OSError) as error:
        return _failed(tried, patience, mask_text(str(error))[:300])
    tried = replace(tried, last_status=response.status)
    if 200 <= response.status < 300:
        return replace(tried, state=CallbackState.DELIVERED, next_try_at=None)
    if response.status == _GONE:
        return gave_up(tried, "the receiver answered 410: it wants no more of these")
    hint = ": redirects are not followed" if 300 <= response.status < 400 else ""
    return _failed(
        tried, patience, f"the receiver answered {response.status}{hint}", retry_after_s(response.headers, now) or 0.0
    )


def gave_up(callback: Callback, why: str) -> Callback:
    """The callback as one that is not tried any more."""
    return replace(callback, state=CallbackState.DEAD, last_error=why, next_try_at=None)


def _failed(callback: Callback, patience: Patience, why: str, not_before_s: float = 0.0) -> Callback:
    if callback.tries > len(patience.again_after_s):
        return gave_up(callback, why)
    pause_s = patience.again_after_s[callback.tries - 1] * random.uniform(0.9, 1.1)  # noqa: S311 - so that not all come at once
    return replace(
        callback, last_error=why, next_try_at=time.time() + max(pause_s, min(not_before_s, LONGEST_RETRY_AFTER_S))
    )
