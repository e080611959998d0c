"""The answer of a run that has an output schema: the JSON itself, whatever the model wrote around it."""

from __future__ import annotations

import msgspec

from worker.gateway.ingress.telling import RESULT_LIMIT_S
from worker.gateway.operation import Call


async def exact_text(call: Call, task_id: str) -> str:
    """JSON that fits the schema. Raises `WaitTimeout`."""
    result = await call.gateway.backend.queue.wait(task_id, RESULT_LIMIT_S)
    try:
        msgspec.json.decode(result.output)
    except msgspec.DecodeError:  # it stands in a fenced block
        return msgspec.json.encode(result.structured).decode()
    return result.output
