"""One path of the API: picks the operation, finds out who calls, reads the request, and answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from worker.gateway.answers import json_response
from worker.gateway.auth import NOBODY
from worker.gateway.body import BoundedReceive, read_body
from worker.gateway.caller import Caller
from worker.gateway.context import Gateway
from worker.gateway.credentials import credential_of
from worker.gateway.decoding import check_content_type, decode_body, decode_query
from worker.gateway.errors import error_response, internal_problem, problem_of
from worker.gateway.front import Front
from worker.gateway.health_api import PROBES
from worker.gateway.operation import Answer, Call, Operation
from worker.gateway.problem import ErrorStyle, Problem

_LONGEST_PARAMETER: Final = 1024

log = structlog.get_logger(__name__)


class Endpoint:
    """All operations of one path, as an ASGI application."""

    def __init__(self, gateway: Gateway, operations: Mapping[str, Operation], front: Front) -> None:
        self._gateway = gateway
        self._operations = operations
        self._front = front
        self._methods = _methods(operations)
        self._style = next(iter(operations.values())).style

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        settings = self._front.settings
        operation = self._operation(scope["method"])
        most = operation.max_body_bytes if operation is not None else None
        bounded = BoundedReceive(
            receive,
            Headers(scope=scope),
            max_bytes=settings.max_body_bytes if most is None else most,
            limit_s=settings.body_timeout_s,
        )
        request = Request(scope, bounded)
        style = _style_for(request, operation.style if operation else self._style)
        try:
            response = await self._answer(request, operation, style)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - every error becomes an answer
            response = self._failed(error, request, style)
        await response(scope, receive, send)

    def _operation(self, method: str) -> Operation | None:
        found = self._operations.get(method)
        if found is None and method == "HEAD":
            found = self._operations.get("GET")
            return None if found is None or found.is_stream else found
        return found

    async def _answer(self, request: Request, operation: Operation | None, style: ErrorStyle) -> Response:
        if operation is None or operation.path not in PROBES:
            self._front.guard.check(request, is_open=self._front.auth.is_open)
        if operation is None:
            return self._no_operation(request)
        request.state.operation = operation
        caller = await self._caller(request, operation, style)
        request.state.caller = caller
        call = await self._read(request, operation, caller)
        if operation.is_stream or getattr(call.body, "stream", False) is True:
            self._front.slots.check(caller.id)
        return as_response(await operation.handler(call), operation)

    def _no_operation(self, request: Request) -> Response:
        allow = {"Allow": ", ".join(self._methods)}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=allow)
        known = f"use {', '.join(self._methods)}"
        raise Problem(405, f"{request.method} is not allowed here: {known}", code="method_not_allowed", headers=allow)

    async def _caller(self, request: Request, operation: Operation, style: ErrorStyle) -> Caller:
        if operation.scope is None:
            return NOBODY
        front = self._front
        try:
            caller = await front.auth.caller_of(request, style)
        except Problem as problem:
            if problem.status == 401 and credential_of(request, style):
                front.metrics.refused_credentials += 1
                front.failures.failed(request.state.client)
            raise
        per_minute = front.auth.requests_per_minute(caller)
        allowance = front.limits.take(
            caller.id, front.settings.requests_per_minute if per_minute is None else per_minute
        )
        if allowance is not None:
            request.state.answer_headers.update(allowance.headers())
        if not caller.may(operation.scope):
            raise Problem(
                403,
                operation.denied
                or f"this needs the scope {operation.scope.value!r}, which {caller.name or caller.id!r} does not have",
                code="missing_scope",
            )
        return caller

    async def _read(self, request: Request, operation: Operation, caller: Caller) -> Call:
        refuses_unknown = operation.style is ErrorStyle.PROBLEM and operation.scope is not None
        body: Any = None
        query = decode_query(request, operation.query, refuses_unknown=refuses_unknown)
        if operation.body is not None:
            content_type = request.headers.get("content-type", "")
            check_content_type(content_type)
            body = decode_body(await read_body(request), operation.body)
        return Call(gateway=self._gateway, request=request, caller=caller, path=_path(request), query=query, body=body)

    def _failed(self, error: Exception, request: Request, style: ErrorStyle) -> Response:
        request_id: str = request.state.request_id
        problem = problem_of(error)
        if problem is None:
            log.error("a request failed", path=request.scope["path"], request_id=request_id, exc_info=error)
            problem = internal_problem()
        return error_response(problem, style, request_id)


def as_response(value: Any, operation: Operation) -> Response:
    """What a handler returned, as a response."""
    if isinstance(value, Response):
        return value
    if not isinstance(value, Answer):
        return json_response(value, status=operation.status)
    if value.value is None:
        return Response(status_code=value.status if value.status != 200 else 204, headers=dict(value.headers))
    return json_response(value.value, status=value.status, headers=value.headers)


def _methods(operations: Mapping[str, Operation]) -> list[str]:
    found = {*operations, "OPTIONS"}
    if "GET" in operations and not operations["GET"].is_stream:
        found.add("HEAD")
    return sorted(found)


def _path(request: Request) -> Mapping[str, str]:
    for name, value in request.path_params.items():
        if len(str(value)) > _LONGEST_PARAMETER or "\x00" in str(value):
            raise Problem(404, f"{name} in the path is nothing that exists", code="not_found")
    return {name: str(value) for name, value in request.path_params.items()}


def _style_for(request: Request, style: ErrorStyle) -> ErrorStyle:
    """Some paths (`/v1/models`) are in two vendors' APIs; Anthropic's clients say who they are."""
    is_anthropic = style is ErrorStyle.OPENAI and "anthropic-version" in request.headers
    return ErrorStyle.ANTHROPIC if is_anthropic else style
