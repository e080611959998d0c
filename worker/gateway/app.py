"""The application: every operation of every module under its path."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from worker.gateway.auth import Authenticator
from worker.gateway.context import Gateway
from worker.gateway.edge import Edge
from worker.gateway.endpoint import Endpoint
from worker.gateway.errors import error_response, style_of
from worker.gateway.front import Front
from worker.gateway.operation import Operation
from worker.gateway.problem import Problem
from worker.settings.gateway import GatewaySettings

API_MODULES: Final = (
    "worker.gateway.health_api",
    "worker.gateway.metrics_api",
    "worker.gateway.docs_api",
    "worker.gateway.keys_api",
    "worker.gateway.tasks_api",
    "worker.gateway.sessions_api",
    "worker.gateway.runs_api",
    "worker.gateway.approvals_api",
    "worker.gateway.admin_api",
    "worker.gateway.datasources_api",
    "worker.gateway.triggers_api",
    "worker.gateway.webhooks_api",
    "worker.gateway.ops_api",
    "worker.gateway.openai_api.api",
    "worker.gateway.anthropic_api.api",
    "worker.gateway.studio_api",
    "worker.gateway.pages.api",
)
"""Modules with `OPERATIONS`."""

_CORS_HEADERS: Final = ("Authorization", "Content-Type", "X-Api-Key", "Last-Event-ID", "Idempotency-Key", "If-Match")


def all_operations() -> tuple[Operation, ...]:
    """Every operation that there is."""
    return tuple(operation for name in API_MODULES for operation in importlib.import_module(name).OPERATIONS)


def build_app(gateway: Gateway, operations: Iterable[Operation] | None = None) -> Starlette:
    """The gateway as an ASGI application; `operations` None: all there are."""
    front = Front(gateway, Authenticator(gateway.settings.gateway, gateway.keys, gateway.oidc))
    chosen = all_operations() if operations is None else tuple(operations)
    routes = [Route(path, Endpoint(gateway, of_path, front)) for path, of_path in _by_path(chosen)]
    middleware = [Middleware(Edge, front=front), *_cors(gateway.settings.gateway)]
    app = Starlette(routes=routes, middleware=middleware, exception_handlers={404: _not_found})
    app.router.redirect_slashes = False
    app.state.front = front
    app.state.operations = chosen
    return app


def _cors(settings: GatewaySettings) -> list[Middleware]:
    """Off, unless there are origins. Keys are sent by the page's own code, so no cookies and no credentials."""
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=[origin.lower() for origin in settings.cors_origins],  # as browsers write them
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=[*_CORS_HEADERS],
            expose_headers=["X-Request-Id", "Retry-After", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"],
            max_age=600,
        )
    ]


def _by_path(operations: Sequence[Operation]) -> list[tuple[str, dict[str, Operation]]]:
    """Paths with their operations by method; paths that say more come before those with parameters."""
    paths: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {}).setdefault(operation.method, operation)
    return sorted(paths.items(), key=lambda item: [(part.startswith("{"), part) for part in item[0].split("/")])


async def _not_found(request: Request, error: Exception) -> Response:
    path = request.scope["path"]
    problem = Problem(404, f"there is nothing at {path[:200]!r}: see /docs", code="not_found")
    return error_response(problem, style_of(path), request.state.request_id)
