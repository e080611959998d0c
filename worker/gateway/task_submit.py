"""Taking tasks: one, or many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from queue_backends import QueueError, Task
from queue_backends.messages import check_task
from worker.errors import WorkerError
from worker.gateway.errors import problem_of
from worker.gateway.operation import Call
from worker.gateway.ownership import Accepted, accept, note, prepared
from worker.gateway.problem import Problem
from worker.gateway.task_views import MOST_KEY_CHARS, BatchItem, BatchRequest, TaskContent, TaskRequest

_AT_ONCE = 50


async def submit_task(call: Call, wanted: TaskRequest) -> Accepted:
    """Submit a task with its callback. Raises as `submit_for`, and what `Callbacks.add` raises.

    Whoever gets no answer does not know whether the task was taken: with an idempotency key it can simply ask again.
    """
    if wanted.callback is not None:
        call.gateway.callbacks.check(wanted.callback)
    key = call.request.headers.get("idempotency-key", "").strip()
    if len(key) > MOST_KEY_CHARS:
        raise Problem(400, f"Idempotency-Key has {len(key)} characters, at most {MOST_KEY_CHARS} are allowed")
    task = wanted.task(idempotency_key=key)
    accepted = await accept(call, task, run_at=wanted.ready_at())
    if wanted.callback is not None:
        await call.gateway.callbacks.add(accepted.id, wanted.callback, tenant=accepted.task.tenant)
    return accepted


async def submit_batch(call: Call, wanted: BatchRequest) -> Sequence[BatchItem]:
    """Check all tasks, then submit all of them. Raises `Problem` 422 that names what is wrong with which."""
    run_at = wanted.ready_at()
    tasks = _prepared(call, wanted.tasks)
    ids = await call.gateway.backend.queue.submit_many(tasks, run_at=run_at)
    items: list[BatchItem] = []
    for start in range(0, len(ids), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        items += await asyncio.gather(
            *(
                _noted(call, task_id, task, content, run_at)
                for task_id, task, content in zip(ids[part], tasks[part], wanted.tasks[part], strict=True)
            )
        )
    return items


async def _noted(call: Call, task_id: str, task: Task, content: TaskContent, run_at: float | None) -> BatchItem:
    try:
        accepted = await note(call, task_id, task, run_at=run_at)
    except Problem as problem:  # its idempotency key stands for something else
        return BatchItem(id=task_id, is_repeated=True, error=problem.detail)
    if content.callback is not None:
        await call.gateway.callbacks.add(task_id, content.callback, tenant=task.tenant)
    return BatchItem(id=task_id, is_repeated=accepted.is_repeated)


def _prepared(call: Call, contents: Sequence[TaskContent]) -> list[Task]:
    tasks: list[Task] = []
    errors: list[dict[str, object]] = []
    max_prompt_bytes = call.gateway.settings.backend.max_prompt_bytes
    for index, content in enumerate(contents):
        try:
            if content.callback is not None:
                call.gateway.callbacks.check(content.callback)
            tasks.append(check_task(prepared(call, content.task()), max_prompt_bytes=max_prompt_bytes))
        except (Problem, QueueError, WorkerError) as error:
            problem = problem_of(error)
            if problem is None:
                raise
            errors.append({"index": index, "code": problem.code, "detail": problem.detail})
    if errors:
        raise Problem(
            422,
            f"{len(errors)} of {len(contents)} tasks cannot be taken, so that none was: see errors",
            code="invalid_batch",
            extra={"errors": errors},
        )
    return tasks
