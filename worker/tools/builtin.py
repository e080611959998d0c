"""Tools that Shoal itself brings: what an agent may do with the queue."""

from __future__ import annotations

import hashlib
from typing import Any

from providers.messages import ToolSpec
from queue_backends import QueueError, Task
from worker.errors import ToolCallFailed
from worker.teams.delegation import Refused, Wanted
from worker.tools.interfaces import ToolContext, ToolResult


class SubmitSubtask:
    """`submit_subtask`: puts a further task of the same agent into the queue and does not wait for it. Texts are ark's.

    The new task carries an idempotency key made of the call, so repeating a call that was interrupted adds no second
    task.
    """

    spec = ToolSpec(
        name="submit_subtask",
        description=(
            "Submit a follow-up task to the task queue, to be worked on independently of this one. Returns the id of "
            "the new task at once; does not wait for its result."
        ),
        input_schema={
            "type": "object",
            "properties": {"prompt": {"type": "string", "description": "The whole instruction for the new task."}},
            "required": ["prompt"],
        },
        idempotent=True,
        timeout_s=15.0,
        kind="builtin",
    )
    after_timeout = "the task may have been submitted all the same"

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """Submit `arguments["prompt"]`. Raises `ToolCallFailed`."""
        prompt: str = arguments["prompt"]
        if not prompt.strip():
            raise ToolCallFailed("submit_subtask: prompt must not be empty")
        try:
            task_id = await self._submit(prompt, context)
        except Refused as error:
            raise ToolCallFailed(f"submit_subtask: {error}") from error
        except QueueError as error:
            raise ToolCallFailed(f"submit_subtask: submitting task: {error}") from error
        return ToolResult(text=f"subtask submitted with id: {task_id}")

    async def _submit(self, prompt: str, context: ToolContext) -> str:
        if context.children is not None:
            [task_id] = await context.children.submit([Wanted(prompt=prompt)], context.call_id)
            return task_id
        if context.submit is None:
            raise ToolCallFailed("submit_subtask: there is no task queue in this run")
        task = Task(
            prompt=prompt,
            agent=context.agent,
            tenant=context.tenant,
            idempotency_key=_idempotency_key(context, prompt),
        )
        return await context.submit(task)


def _idempotency_key(context: ToolContext, prompt: str) -> str:
    if not context.task_id or not context.call_id:
        return ""
    digest = hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest()[:16]
    return f"{context.task_id}:{context.call_id}:{digest}"
