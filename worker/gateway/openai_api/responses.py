"""`/v1/responses`: a response is a task. What it streams is derived from the task's chunks, so that it can be streamed
again, from any event on, by any gateway."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from queue_backends import ReplayTrimmed, TaskNotFound, TaskState, WaitTimeout
from queue_backends.messages import JsonObject
from worker.gateway.ingress.failures import problem_of_failure
from worker.gateway.ingress.narration import Failed
from worker.gateway.ingress.recollection import with_recollection
from worker.gateway.ingress.streaming import WatchedEvents, streamed
from worker.gateway.ingress.submission import Submitted, submit
from worker.gateway.ingress.watch import Watch, in_one_piece
from worker.gateway.openai_api.parameters import refused
from worker.gateway.openai_api.response_object import response_object
from worker.gateway.openai_api.response_request import InputItemsQuery, ResponseQuery, ResponseRequest
from worker.gateway.openai_api.response_store import ResponseRecord, forget, keep, stored
from worker.gateway.openai_api.response_stream import remembered, response_sse, whole
from worker.gateway.openai_api.response_translation import ask_of, before, record_of
from worker.gateway.operation import Call
from worker.gateway.problem import ErrorStyle, shutting_down
from worker.gateway.sse import sse_response

MOST_ITEMS = 100
CANCEL_WAIT_S = 10.0
"""So long may a worker take to end a run that was cancelled, before the answer says that it is still in progress."""
READ_LIMIT_S = 30.0


async def create_response(call: Call) -> JsonObject | Response:
    """Have an agent answer: at once, as a stream, or in the background."""
    request: ResponseRequest = call.body
    ask = await with_recollection(call, ask_of(request, await before(call, request.previous_response_id)))
    streams, in_background = bool(request.stream), bool(request.background)
    submitted = await submit(
        call,
        ask,
        api="responses",
        is_kept=in_background or request.store is True,
        may_wait=in_background,
        waits=not streams and not in_background,
    )
    record = record_of(request, ask, submitted.task_id)
    if request.store is not False:
        record = await keep(call, record)
    if in_background and not streams:
        return response_object(record, "queued")
    watch = Watch(call, submitted)
    if in_background:
        return _event_stream(call, record, watch)
    if streams:
        return await streamed(call, watch, lambda chunks: response_sse(call, record, chunks))
    return await in_one_piece(call, watch, _answered(call, record, watch))


async def _answered(call: Call, record: ResponseRecord, watch: Watch) -> JsonObject:
    found = await whole(call, record, watch.chunks())
    if found is None:
        raise shutting_down()
    if found["status"] in ("failed", "cancelled"):
        # A client that waits is told of a failure by the status of the answer.
        raise problem_of_failure(watch.failure or Failed(message="the run failed"), ErrorStyle.OPENAI)
    return found


def _event_stream(call: Call, record: ResponseRecord, watch: Watch, *, starting_after: int = -1) -> Response:
    events = WatchedEvents(watch, response_sse(call, record, watch.chunks(), starting_after=starting_after))
    return sse_response(events, heartbeat_s=call.gateway.settings.gateway.heartbeat_s, retry_ms=None)


async def get_response(call: Call) -> JsonObject | Response:
    """A stored response as it stands; with `stream=true` its events, those after `starting_after`."""
    query: ResponseQuery = call.query
    record = await stored(call, call.path["id"])
    if not query.stream:
        if query.starting_after is not None:
            raise refused("starting_after", "it needs 'stream=true'", code="invalid_value")
        return await _standing(call, record)
    watch = Watch(call, Submitted(task_id=record.task_id, is_kept=True, may_wait=True))
    after = -1 if query.starting_after is None else query.starting_after
    return _event_stream(call, record, watch, starting_after=after)


async def _standing(call: Call, record: ResponseRecord) -> JsonObject:
    [status] = await call.gateway.backend.queue.status([record.task_id])
    if status.state in (TaskState.READY, TaskState.DELAYED):
        return response_object(record, "queued")
    if status.state is TaskState.RUNNING:
        return response_object(record, "in_progress")
    try:
        async with asyncio.timeout(READ_LIMIT_S):
            found = await whole(call, record, call.gateway.hub.follow(record.task_id))
        if found is not None:
            return found
    except (ReplayTrimmed, TaskNotFound, TimeoutError):
        if status.result is None:
            raise
    if status.result is None:
        raise shutting_down()
    return remembered(record, status.result)


async def cancel_response(call: Call) -> JsonObject:
    """End a background response."""
    record = await stored(call, call.path["id"])
    if not record.background:
        raise refused("id", "only responses that were created with 'background': true can be cancelled", code="invalid")
    queue = call.gateway.backend.queue
    await queue.cancel([record.task_id])
    try:
        await queue.wait(record.task_id, CANCEL_WAIT_S)
    except WaitTimeout:
        return response_object(record, "in_progress")
    return await _standing(call, record)


async def delete_response(call: Call) -> JsonObject:
    """Forget a response; one that is still under way is cancelled."""
    record = await stored(call, call.path["id"])
    await forget(call, record)
    await call.gateway.backend.queue.cancel([record.task_id])
    return {"id": record.id, "object": "response", "deleted": True}


async def list_input_items(call: Call) -> JsonObject:
    """The input of a stored response, a page at a time."""
    query: InputItemsQuery = call.query
    if not 1 <= query.limit <= MOST_ITEMS:
        raise refused("limit", f"{query.limit} is not allowed: give 1 to {MOST_ITEMS}", code="invalid_value")
    record = await stored(call, call.path["id"])
    items = list(record.items) if query.order == "asc" else list(reversed(record.items))
    ids = [item["id"] for item in items]
    if query.after:
        if query.after not in ids:
            raise refused("after", f"there is no item {query.after[:100]!r}", code="invalid_value")
        items = items[ids.index(query.after) + 1 :]
    page = items[: query.limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(items) > len(page),
    }
