"""Operations that tests of the gateway's core need: one for each thing that can happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from msgspec import Struct
from starlette.responses import PlainTextResponse, Response

import queue_backends as queue
from providers import errors as provider_errors
from worker import errors as worker_errors
from worker.gateway.caller import Scope
from worker.gateway.health_api import OPERATIONS as HEALTH
from worker.gateway.metrics_api import OPERATIONS as METRICS
from worker.gateway.operation import Answer, Call, Operation
from worker.gateway.problem import ErrorStyle, Problem
from worker.gateway.sse import SseEvent, sse_response
from worker.objects import BadObject, ObjectConflict, ObjectExists, ObjectNotFound

RAISED: dict[str, tuple[Exception, int]] = {
    "problem": (Problem(418, "short and stout", code="teapot", extra={"spout": 1}), 418),
    "invalid_task": (queue.InvalidTask("the prompt is empty"), 422),
    "full": (queue.QueueFull("the queue is full"), 429),
    "away": (queue.BackendUnavailable("the queue is away"), 503),
    "no_task": (queue.TaskNotFound("no such task"), 404),
    "trimmed": (queue.ReplayTrimmed("t1", 7), 410),
    "no_agent": (worker_errors.AgentNotFound("no such agent"), 404),
    "denied": (worker_errors.AccessDenied("not yours"), 403),
    "setting": (worker_errors.BadSetting("wrong"), 422),
    "bad_object": (BadObject("wrong"), 422),
    "exists": (ObjectExists("there is one"), 409),
    "conflict": (ObjectConflict("changed"), 409),
    "not_found": (ObjectNotFound("none"), 404),
    "overloaded": (provider_errors.Overloaded("too much"), 503),
    "provider": (provider_errors.AuthenticationFailed("key sk-abcdefghijklmnop is wrong"), 502),
    "fault": (RuntimeError("password=hunter2 in /srv/app/secret.py"), 500),
}


LARGE_BYTES = 32 * 1024 * 1024


class Body(Struct, frozen=True, kw_only=True):
    """What is echoed."""

    text: str
    number: int = 0


class Query(Struct, frozen=True, kw_only=True):
    """One parameter of each kind."""

    limit: int = 10
    flag: bool = False
    names: list[str] = []
    ratio: float | None = None


async def raise_it(call: Call) -> None:
    """Raise the error that the path names."""
    raise RAISED[call.path["name"]][0].with_traceback(None)


async def echo(call: Call) -> Body:
    """Give back the body."""
    body: Body = call.body
    return body


async def made(call: Call) -> Answer:
    """Answer with a status and a header of its own."""
    return Answer(value={"id": 1}, status=201, headers={"Location": "/t/1"})


async def gone(call: Call) -> Answer:
    """Answer with nothing."""
    return Answer()


async def query(call: Call) -> Query:
    """Give back the query."""
    found: Query = call.query
    return found


async def whoami(call: Call) -> dict[str, object]:
    """Say who asks."""
    caller = call.caller
    return {
        "id": caller.id,
        "name": caller.name,
        "scopes": sorted(caller.scopes),
        "groups": sorted(caller.groups),
        "tenant": caller.tenant,
        "client": call.request.client.host if call.request.client else "",
        "scheme": call.request.url.scheme,
    }


async def stream(call: Call) -> object:
    """One event, then silence."""

    async def events() -> AsyncIterator[SseEvent]:
        yield SseEvent("hello")
        await asyncio.Event().wait()

    return sse_response(events(), heartbeat_s=60, headers={})


async def large(call: Call) -> Response:
    """More than fits into the buffers between a server and a client."""
    return PlainTextResponse("a" * LARGE_BYTES)


async def slow(call: Call) -> str:
    """Take a little time."""
    await asyncio.sleep(0.5)
    return "done"


async def endless(call: Call) -> str:
    """Never answer."""
    await asyncio.Event().wait()
    return "never"


def _operation(method: str, path: str, handler: object, **more: object) -> Operation:
    fields = {"summary": "for tests", "scope": Scope.TASKS_READ, "tag": "Tests", **more}
    return Operation(method=method, path=path, handler=handler, **fields)  # type: ignore[arg-type]  # loose on purpose


OPERATIONS: tuple[Operation, ...] = (
    *HEALTH,
    *METRICS,
    _operation("GET", "/t/raise/{name}", raise_it),
    _operation("GET", "/api/raise/{name}", raise_it, style=ErrorStyle.STUDIO),
    _operation("GET", "/v1/chat/raise/{name}", raise_it, style=ErrorStyle.OPENAI),
    _operation("GET", "/v1/messages/raise/{name}", raise_it, style=ErrorStyle.ANTHROPIC),
    _operation("POST", "/t/echo", echo, body=Body),
    _operation("POST", "/t/small", echo, body=Body, max_body_bytes=64),
    _operation("POST", "/t/made", made),
    _operation("DELETE", "/t/made", gone),
    _operation("GET", "/t/query", query, query=Query),
    _operation("GET", "/api/query", query, query=Query, style=ErrorStyle.STUDIO),
    _operation("GET", "/t/whoami", whoami),
    _operation("POST", "/t/whoami", whoami),
    _operation("GET", "/api/whoami", whoami, style=ErrorStyle.STUDIO),
    _operation("GET", "/t/stream", stream, is_stream=True),
    _operation("GET", "/t/slow", slow),
    _operation("GET", "/t/endless", endless),
    _operation("GET", "/t/large", large),
)
