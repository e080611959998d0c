"""The tasks API: `/v1/tasks`."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
from msgspec.structs import replace
from starlette.responses import Response

from queue_backends import CancelOutcome, TaskResult, TaskState, TaskStatus, WaitTimeout
from worker.client import Handle
from worker.gateway.callbacks import CallbackView
from worker.gateway.caller import Scope
from worker.gateway.operation import Answer, Call, Operation
from worker.gateway.ownership import may_see, owned_status, read_record
from worker.gateway.problem import Problem
from worker.gateway.task_artifacts import artifact_of_task
from worker.gateway.task_listing import list_tasks
from worker.gateway.task_retry import retry_task
from worker.gateway.task_stream import stream_task
from worker.gateway.task_submit import submit_batch, submit_task
from worker.gateway.task_views import (
    MOST_WAIT_S,
    BatchAnswer,
    BatchRequest,
    CallbackPage,
    CancelAnswer,
    ListQuery,
    MessagesAnswer,
    ResultView,
    StreamQuery,
    TaskPage,
    TaskRequest,
    TaskView,
    TimelineAnswer,
    UsageAnswer,
    WaitQuery,
    view_of,
)
from worker.journal import ModelCall, read_journal
from worker.waiting import waits_for, without_vain_looks

_ENDED = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})
_PREFERRED_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})", re.IGNORECASE)


async def _submit(call: Call) -> Answer:
    accepted = await submit_task(call, call.body)
    wait_s, headers = call.query.wait_s, {"Location": f"/v1/tasks/{accepted.id}"}
    preferred = _PREFERRED_WAIT.search(call.request.headers.get("prefer", ""))
    if preferred and not wait_s:
        wait_s = min(float(preferred[1]), MOST_WAIT_S)
        headers["Preference-Applied"] = f"wait={wait_s:g}"
    if accepted.is_repeated:
        headers["Idempotent-Replayed"] = "true"
    if wait_s:
        await _end_of(call, accepted.id, wait_s)
    [status] = await call.gateway.backend.queue.status([accepted.id])
    view = await _view(call, status, is_repeated=accepted.is_repeated)
    return Answer(value=view, status=200 if status.state in _ENDED else 202, headers=headers)


async def _submit_batch(call: Call) -> Answer:
    return Answer(value=BatchAnswer(tasks=await submit_batch(call, call.body)), status=202)


async def _get(call: Call) -> TaskView:
    return await _view(call, await owned_status(call, call.path["id"]))


async def _list(call: Call) -> TaskPage:
    return await list_tasks(call, call.query)


async def _cancel(call: Call) -> CancelAnswer:
    task_id = call.path["id"]
    await owned_status(call, task_id)
    [outcome] = await call.gateway.backend.queue.cancel([task_id])
    if outcome is CancelOutcome.UNKNOWN:  # it has ended meanwhile, and its result has expired
        outcome = CancelOutcome.FINISHED
    return CancelAnswer(id=task_id, outcome=outcome.value)


async def _retry(call: Call) -> Answer:
    status = await retry_task(call, call.path["id"])
    return Answer(value=await _view(call, status), status=202)


async def _result(call: Call) -> Answer:
    task_id = call.path["id"]
    status = await owned_status(call, task_id)
    result = status.result or (await _end_of(call, task_id, call.query.wait_s) if call.query.wait_s else None)
    if result is None:
        [result] = await call.gateway.backend.queue.results([task_id])
    if result is None:
        view = await _view(call, status)
        return Answer(value=view, status=202, headers={"Retry-After": "1", "Location": f"/v1/tasks/{task_id}/result"})
    return Answer(value=ResultView.of(result))


async def _messages(call: Call) -> MessagesAnswer:
    await owned_status(call, call.path["id"])
    return MessagesAnswer(messages=await Handle(call.gateway.backend, call.path["id"]).messages())


async def _timeline(call: Call) -> TimelineAnswer:
    await owned_status(call, call.path["id"])
    moments = without_vain_looks(await read_journal(call.gateway.backend.state, call.path["id"]))
    entries: list[dict[str, Any]] = [{"at": each.at, **msgspec.to_builtins(each.entry)} for each in moments]
    return TimelineAnswer(entries=entries)


async def _usage(call: Call) -> UsageAnswer:
    await owned_status(call, call.path["id"])
    moments = await read_journal(call.gateway.backend.state, call.path["id"])
    records = [each.entry.usage for each in moments if isinstance(each.entry, ModelCall)]
    return UsageAnswer.of(records)


async def _tell_again(call: Call) -> Answer:
    task_id = call.path["id"]
    await owned_status(call, task_id)
    view = await call.gateway.callbacks.again(task_id)
    if view is None:
        raise Problem(409, f"task {task_id} has no callback that is over", code="no_callback")
    return Answer(value=view, status=202)


async def _dead_callbacks(call: Call) -> CallbackPage:
    callbacks = await call.gateway.callbacks.dead(tenant=call.caller.tenant)
    if call.caller.app:
        callbacks = [callback for callback in callbacks if await _is_ours(call, callback.task_id)]
    return CallbackPage(callbacks=callbacks)


async def _is_ours(call: Call, task_id: str) -> bool:
    record = await read_record(call.gateway.backend.state, task_id)
    return record is not None and may_see(call, record.tenant, record.agent, record)


async def _stream(call: Call) -> Response:
    return await stream_task(call, call.path["id"])


async def _end_of(call: Call, task_id: str, wait_s: float) -> TaskResult | None:
    try:
        return await call.gateway.backend.queue.wait(task_id, wait_s)
    except WaitTimeout:
        return None


async def _view(call: Call, status: TaskStatus, *, is_repeated: bool = False) -> TaskView:
    record, callback = await asyncio.gather(
        read_record(call.gateway.backend.state, status.id), call.gateway.callbacks.view(status.id)
    )
    view = view_of(status, record, callback, is_repeated=is_repeated)
    if status.state is not TaskState.DELAYED:
        return view
    return replace(view, waits_for=await waits_for(call.gateway.backend.state, status.id))


def _operation(method: str, path: str, handler: Any, summary: str, **more: Any) -> Operation:
    scope = more.pop("scope", Scope.TASKS_READ if method == "GET" else Scope.TASKS_WRITE)
    return Operation(
        method=method, path=f"/v1{path}", handler=handler, summary=summary, scope=scope, tag="Tasks", **more
    )


OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "POST",
        "/tasks",
        _submit,
        "Submit a task; with a wait, answer with its result if that comes in time",
        body=TaskRequest,
        query=WaitQuery,
        result=TaskView,
        status=202,
        also={200: TaskView},
        errors=(404, 422),
    ),
    _operation(
        "POST",
        "/tasks/batch",
        _submit_batch,
        "Submit many tasks: all of them, or none",
        body=BatchRequest,
        result=BatchAnswer,
        status=202,
        errors=(422,),
    ),
    _operation("GET", "/tasks", _list, "List tasks", query=ListQuery, result=TaskPage),
    _operation("GET", "/tasks/{id}", _get, "A task: where it is, and how it ended", result=TaskView, errors=(404,)),
    _operation(
        "POST", "/tasks/{id}/cancel", _cancel, "End a task, waiting or running", result=CancelAnswer, errors=(404,)
    ),
    _operation(
        "POST",
        "/tasks/{id}/retry",
        _retry,
        "Run a failed task again",
        result=TaskView,
        status=202,
        errors=(404, 409, 410),
    ),
    _operation(
        "GET",
        "/tasks/{id}/stream",
        _stream,
        "A task's chunks as server-sent events, resumed after `Last-Event-ID`",
        query=StreamQuery,
        is_stream=True,
        also={204: None},
        errors=(404, 410),
    ),
    _operation(
        "GET",
        "/tasks/{id}/result",
        _result,
        "A task's result, waited for on request; 202 if it has not ended",
        query=WaitQuery,
        result=ResultView,
        also={202: TaskView},
        errors=(404,),
    ),
    _operation(
        "GET",
        "/tasks/{id}/artifacts/{name}",
        artifact_of_task,
        "A file that the task has made",
        is_file=True,
        errors=(404, 502),
    ),
    _operation(
        "GET",
        "/tasks/{id}/messages",
        _messages,
        "What the run added to the conversation",
        result=MessagesAnswer,
        errors=(404,),
    ),
    _operation("GET", "/tasks/{id}/timeline", _timeline, "The run's journal", result=TimelineAnswer, errors=(404,)),
    _operation(
        "GET", "/tasks/{id}/usage", _usage, "What a task has used, call by call", result=UsageAnswer, errors=(404,)
    ),
    _operation(
        "POST",
        "/tasks/{id}/callback/retry",
        _tell_again,
        "Tell a task's end once more",
        result=CallbackView,
        status=202,
        errors=(404, 409),
    ),
    _operation("GET", "/callbacks/dead", _dead_callbacks, "Callbacks that were given up", result=CallbackPage),
)
