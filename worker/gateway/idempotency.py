"""What an idempotency key stands for. That is settled before the task is submitted: of two who use a key for different
things at the same moment, through whichever gateways, the one is refused whose task it is not."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

from msgspec.structs import replace

from queue_backends import StateStore, Task
from queue_backends.messages import encode_json
from worker.gateway.problem import Problem

_SLACK_S = 60.0
"""So much longer than the queue knows a key."""


def fingerprint(task: Task) -> str:
    """Of what a task consists of, without what differs each time it is submitted; empty: it has no key."""
    if not task.idempotency_key:
        return ""
    same = replace(task, id="", deadline=None, enqueued_at="", traceparent="", tracestate="", baggage="")
    return hashlib.sha256(encode_json(same)).hexdigest()[:24]


async def reserve(state: StateStore, task: Task, *, keep_s: float) -> bool:
    """From now on, and for `keep_s`, the task's key stands for its content. Whether it was free.

    Raises `Problem` 422 if it stands for another content, and `BackendUnavailable`.
    """
    if not task.idempotency_key:
        return False
    key, raw = _key(task), fingerprint(task).encode()
    if await state.compare_and_set(key, None, raw, ttl_s=keep_s + _SLACK_S):
        return True
    found = await state.get(key)
    if found is not None and found != raw:
        raise reused()
    return False


async def release(state: StateStore, task: Task) -> None:
    """The task was not taken: its key, which was free, is free again. Raises `BackendUnavailable`."""
    await state.compare_and_set(_key(task), fingerprint(task).encode(), None)


def reused() -> Problem:
    """A key that stands for something else."""
    return Problem(
        422,
        "this idempotency key stands for a task with another content: use a new key",
        code="idempotency_key_reused",
    )


def _key(task: Task) -> str:
    return f"gateway/idempotency/{quote(task.idempotency_key, safe='')}"
