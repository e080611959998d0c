"""One operation of the gateway's API, declared once: its route, who may call it, what goes in and out.

The application, the OpenAPI document and the test matrix of routes and roles are all made from these.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from worker.gateway.caller import Caller, Scope
from worker.gateway.problem import ErrorStyle

if TYPE_CHECKING:
    from worker.gateway.context import Gateway


class Call(Struct, frozen=True, kw_only=True):
    """One request, authenticated and read."""

    gateway: Gateway
    request: Request
    caller: Caller
    path: Mapping[str, str]
    """The path's parameters."""
    query: Any = None
    """An instance of the operation's `query`."""
    body: Any = None
    """An instance of the operation's `body`."""


class Answer(Struct, frozen=True, kw_only=True):
    """What a handler answers, if not simply a value with status 200: it is encoded as JSON."""

    value: Any = None
    """None: no content."""
    status: int = 200
    headers: Mapping[str, str] = {}


Handler = Callable[[Call], Awaitable["Response | Answer | Any"]]
"""Returns a value for JSON (a Struct, a dict, a list), an `Answer`, or a response of its own such as a stream.
Raises `Problem`, or an error of the packages that is mapped to one."""


class Operation(Struct, frozen=True, kw_only=True):
    """One method on one path."""

    method: str
    path: str
    """As starlette writes it: `/v1/tasks/{id}`."""
    handler: Handler
    summary: str
    """One line, for the OpenAPI document."""
    scope: Scope | None
    """What the caller must have; None: anybody, not even authenticated."""
    tag: str
    """The part of the API that it belongs to."""
    denied: str = ""
    """What a caller without the scope is told; empty: the usual."""
    body: type[Any] | None = None
    """A Struct; the request's JSON is decoded to it, and refused with 400 if it does not fit."""
    query: type[Any] | None = None
    """A Struct whose fields are the query's parameters."""
    result: Any = None
    """The type of the successful answer, for the OpenAPI document."""
    status: int = 200
    """Of the successful answer."""
    also: Mapping[int, Any] = {}
    """Further successful statuses, with the types of their answers; None: no content."""
    errors: tuple[int, ...] = ()
    """Further statuses that it may answer with; 400, 401, 403, 413, 429, 500 and 503 are understood."""
    is_stream: bool = False
    """Answers with `text/event-stream`."""
    is_file: bool = False
    """Answers with the bytes of a file."""
    style: ErrorStyle = ErrorStyle.PROBLEM
    max_body_bytes: int | None = None
    """None: the gateway's own limit."""
    is_hidden: bool = False
    """An alias: works, and is not in the OpenAPI document."""
