"""An entry that is no task: how it ends."""

from __future__ import annotations

import time

from queue_backends.errors import InvalidTask
from queue_backends.interfaces import BackendOptions, Dead, Delivery
from queue_backends.messages import ChunkDraft, ChunkType, TaskResult
from queue_backends.postgresql.rows import TaskRow, decode_entry, encode_entry

KEPT_OF_REFUSED = 1000
"""Of a prompt that is too large, the dead letter has this many characters."""


def refusal(delivery: Delivery, reason: str) -> Dead:
    """To the dead letters; the reason is the result and the final chunk too."""
    return Dead(
        delivery=delivery,
        result=TaskResult(task_id=delivery.task.id, error=reason, finished_at=time.time()),
        chunks=(ChunkDraft(type=ChunkType.ERROR, content=reason, is_final=True),),
    )


def letter_of(row: TaskRow, options: BackendOptions) -> bytes | None:
    """What the dead letter keeps of an entry whose prompt is too large; None: all of it."""
    try:
        prompt = decode_entry(row.entry).get("prompt", "")
    except InvalidTask:
        return None if len(row.entry) <= options.max_prompt_bytes else encode_entry({})
    if len(prompt.encode()) <= options.max_prompt_bytes:
        return None
    return encode_entry({"prompt": prompt[:KEPT_OF_REFUSED]})
