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
from worker.gateway.task_claims import Refused, claimed
from worker.gateway.task_views import MOST_KEY_CHARS, BatchItem, BatchRequest, TaskContent, TaskRequest

_AT_ONCE = 50


async def submit_task(call: Call, wanted: TaskRequest) -> Accepted:
    """Submit a task with its callback. Raises as `submit_for`, and what `Callbacks.add` raises.

    Whoever gets no answer does not know whether the task was taken: with an idempotency key it can simply ask again.
    """
    if wanted.callback is not None:
        call.gateway.callbacks.check(wanted.callback)
    task = wanted.task(idempotency_key=_key_of(call))
    accepted = await accept(call, task, run_at=wanted.ready_at())
    if wanted.callback is not None:
        await call.gateway.callbacks.add(accepted.id, wanted.callback, tenant=accepted.task.tenant)
    return accepted


async def submit_batch(call: Call, wanted: BatchRequest) -> Sequence[BatchItem]:
    """Check all tasks, then submit all of them. Raises `Problem` 422 that names what is wrong with which.

    An `Idempotency-Key` in the headers is for the whole batch: each task has it with its position behind it, unless it
    has a key of its own.
    """
    run_at = wanted.ready_at()
    tasks = _prepared(call, wanted.tasks)
    async with claimed(call, tasks, problem_of=lambda refused: _refusal(refused, len(tasks))):
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


def _key_of(call: Call) -> str:
    key = call.request.headers.get("idempotency-key", "").strip()
    if len(key) > MOST_KEY_CHARS:
        raise Problem(400, f"Idempotency-Key has {len(key)} characters, at most {MOST_KEY_CHARS} are allowed")
    return key


def _prepared(call: Call, contents: Sequence[TaskContent]) -> list[Task]:
    key = _key_of(call)
    tasks: list[Task] = []
    refused: list[tuple[int, Problem]] = []
    max_prompt_bytes = call.gateway.settings.backend.max_prompt_bytes
    for index, content in enumerate(contents):
        try:
            if content.callback is not None:
                call.gateway.callbacks.check(content.callback)
            task = content.task(idempotency_key=f"{key}#{index}" if key and not content.idempotency_key else "")
            tasks.append(check_task(prepared(call, task), max_prompt_bytes=max_prompt_bytes))
        except (Problem, QueueError, WorkerError) as error:
            problem = problem_of(error)
            if problem is None:
                raise
            refused.append((index, problem))
    if refused:
        raise _refusal(refused, len(contents))
    return tasks


def _refusal(refused: Refused, among: int) -> Problem:
    errors = [{"index": index, "code": problem.code, "detail": problem.detail} for index, problem in refused]
    return Problem(
        422,
        f"{len(errors)} of {among} tasks cannot be taken, so that none was: see errors",
        code="invalid_batch",
        extra={"errors": errors},
    )
