"""From an error to the answer that its caller gets: which status, and in which of the four forms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

import providers.errors as provider_errors
import queue_backends.errors as queue_errors
from worker import errors as worker_errors
from worker import net_guard
from worker.datasources import errors as datasource_errors
from worker.gateway.answers import json_response
from worker.gateway.problem import ErrorStyle, Problem
from worker.log import mask_text
from worker.objects import errors as object_errors
from worker.sessions import errors as session_errors
from worker.teams import errors as team_errors

PROBLEM_JSON: Final = "application/problem+json"

_TRY_AGAIN_S: Final = 2

_STATUS: Final[Mapping[type[Exception], tuple[int, str]]] = {
    queue_errors.InvalidTask: (422, "invalid_task"),
    queue_errors.QueueFull: (429, "queue_full"),
    queue_errors.BackendUnavailable: (503, "backend_unavailable"),
    queue_errors.TaskNotFound: (404, "task_not_found"),
    queue_errors.WaitTimeout: (504, "wait_timeout"),
    queue_errors.ReplayTrimmed: (410, "replay_trimmed"),
    queue_errors.ChunkTooLarge: (413, "chunk_too_large"),
    worker_errors.AccessDenied: (403, "access_denied"),
    worker_errors.BadSetting: (422, "bad_setting"),
    worker_errors.AgentNotFound: (404, "agent_not_found"),
    worker_errors.AgentUnusable: (409, "agent_unusable"),
    worker_errors.WorkerNotFound: (404, "worker_not_found"),
    worker_errors.ApprovalNotFound: (404, "approval_not_found"),
    worker_errors.ApprovalDecided: (409, "approval_decided"),
    session_errors.SessionNotFound: (404, "session_not_found"),
    session_errors.ConversationNotFound: (404, "conversation_not_found"),
    session_errors.ConversationBusy: (409, "conversation_busy"),
    session_errors.NothingToRetry: (409, "nothing_to_retry"),
    session_errors.SessionClosed: (409, "session_closed"),
    session_errors.TooLong: (413, "message_too_long"),
    session_errors.TooMuch: (429, "too_much"),
    datasource_errors.DatasourceNotFound: (404, "datasource_not_found"),
    datasource_errors.QueryFailed: (422, "query_failed"),
    datasource_errors.IngestFailed: (422, "ingest_failed"),
    datasource_errors.BadVectorStore: (409, "bad_vector_store"),
    datasource_errors.StoreFull: (409, "store_full"),
    datasource_errors.StoreUnavailable: (503, "store_unavailable"),
    net_guard.AddressRefused: (422, "address_refused"),
    object_errors.BadObject: (422, "bad_object"),
    object_errors.ObjectExists: (409, "object_exists"),
    object_errors.ObjectNotFound: (404, "object_not_found"),
    object_errors.ObjectConflict: (409, "object_conflict"),
    object_errors.ObjectInUse: (409, "object_in_use"),
    team_errors.BadTeamFile: (422, "bad_team_file"),
    team_errors.TemplateError: (422, "bad_template"),
    team_errors.BadInput: (422, "bad_input"),
    team_errors.TeamNotFound: (404, "team_not_found"),
    team_errors.RunNotFound: (404, "run_not_found"),
    team_errors.RunEnded: (409, "run_ended"),
    team_errors.RunBusy: (409, "run_busy"),
    provider_errors.RateLimited: (429, "provider_rate_limited"),
    provider_errors.Overloaded: (503, "provider_overloaded"),
    provider_errors.Unavailable: (503, "provider_unavailable"),
    provider_errors.ProviderTimeout: (504, "provider_timeout"),
    provider_errors.ContextTooLong: (422, "context_too_long"),
    provider_errors.InvalidRequest: (422, "provider_refused_request"),
    provider_errors.Refused: (422, "provider_refused"),
    provider_errors.ProviderError: (502, "provider_failed"),
}
"""Nearest class wins. What is not here is a fault of ours: 500, and nothing of it is shown."""

_OPENAI_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_UNREADABLE: Final = frozenset({"invalid_body", "invalid_json", "invalid_query", "unsupported_media_type"})
_PREFIXES: Final = (
    ("/api/", ErrorStyle.STUDIO),
    ("/common/", ErrorStyle.STUDIO),
    ("/v1/messages", ErrorStyle.ANTHROPIC),
    ("/v1/chat/", ErrorStyle.OPENAI),
    ("/v1/completions", ErrorStyle.OPENAI),
    ("/v1/responses", ErrorStyle.OPENAI),
    ("/v1/embeddings", ErrorStyle.OPENAI),
    ("/v1/models", ErrorStyle.OPENAI),
)


def style_of(path: str) -> ErrorStyle:
    """In which form somebody expects errors who asks for a path that does not exist."""
    return next((style for prefix, style in _PREFIXES if path.startswith(prefix)), ErrorStyle.PROBLEM)


def problem_of(error: Exception) -> Problem | None:
    """What an error of the packages means to a caller; None: it is a fault of ours."""
    if isinstance(error, Problem):
        return error
    for kind in type(error).__mro__:
        if kind in _STATUS:
            status, code = _STATUS[kind]
            return Problem(status, mask_text(str(error)), code=code, headers=_retry_after(status, error))
    return None


def _retry_after(status: int, error: Exception) -> dict[str, str]:
    if status not in (429, 503):
        return {}
    told = getattr(error, "retry_after_s", None)
    seconds = math.ceil(told) if isinstance(told, int | float) and told > 0 else _TRY_AGAIN_S
    return {"Retry-After": str(seconds)}


def internal_problem() -> Problem:
    """What is told about a fault of ours."""
    return Problem(500, "something went wrong in the gateway; its log has the reason under this request id")


def error_response(problem: Problem, style: ErrorStyle, request_id: str) -> Response:
    """The answer that tells a caller of a problem, in its own form."""
    problem.detail = mask_text(problem.detail)  # it may repeat what was sent, a key in the wrong place too
    body, media_type = _BODIES[style](problem, request_id), "application/json"
    if style is ErrorStyle.PROBLEM:
        media_type = PROBLEM_JSON
    return json_response(body, status=problem.status, headers=problem.headers, media_type=media_type)


def _rfc9457(problem: Problem, request_id: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "type": f"urn:shoal:problem:{problem.code}" if problem.code else "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "request_id": request_id,
    }
    if problem.code:
        body["code"] = problem.code
    return {**problem.extra, **body}


def _studio(problem: Problem, request_id: str) -> dict[str, Any]:
    if problem.status == 401:
        return {"error": "Unauthorized"}
    title = "Invalid request" if problem.code in _UNREADABLE else problem.title
    return {"errors": [{"title": title, "detail": problem.detail}]}


def _openai(problem: Problem, request_id: str) -> dict[str, Any]:
    usual = "server_error" if problem.status >= 500 else "invalid_request_error"
    error: dict[str, Any] = {
        "message": problem.detail,
        "type": _OPENAI_TYPES.get(problem.status, usual),
        "param": None,
        "code": problem.code or None,
    }
    return {"error": {**error, **problem.extra}}


def _anthropic(problem: Problem, request_id: str) -> dict[str, Any]:
    usual = "api_error" if problem.status >= 500 else "invalid_request_error"
    error = {"type": _ANTHROPIC_TYPES.get(problem.status, usual), "message": problem.detail}
    return {"type": "error", "error": {**error, **problem.extra}, "request_id": request_id}


_BODIES: Final = {
    ErrorStyle.PROBLEM: _rfc9457,
    ErrorStyle.STUDIO: _studio,
    ErrorStyle.OPENAI: _openai,
    ErrorStyle.ANTHROPIC: _anthropic,
}
