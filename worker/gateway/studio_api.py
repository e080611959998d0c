"""AI Studio's API of agents: `/common/agents` for users, `/api/v1/agents` and `/api/v1/plugins` for administrators,
`/api/agents` as its guide has it.

Source: `api/api.go`, `api/agent_handler.go` of AI Studio and its guide to agent plugins. Where ours differs, and why:
`docs/sessions.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from worker.gateway.caller import Scope
from worker.gateway.operation import Operation
from worker.gateway.problem import ErrorStyle
from worker.gateway.studio_agents import (
    activate_agent,
    create_agent,
    deactivate_agent,
    delete_agent,
    get_agent,
    list_agents,
    update_agent,
)
from worker.gateway.studio_plugins import create_plugin, delete_plugin, get_plugin, list_plugins, update_plugin
from worker.gateway.studio_talk import post_message, stream_agent
from worker.gateway.studio_views import AgentConfigRequest, ListQuery, MessageRequest, PluginRequest

_TAG = "AI Studio"
_USER_PATHS = ("/common/agents", "/api/agents")
_ADMIN_PATH = "/api/v1/agents"
_PLUGINS = "/api/v1/plugins"


class _SessionQuery(Struct, frozen=True, kw_only=True):
    session_id: str = ""
    token: str = ""
    """A key, for browsers: their event streams cannot send headers."""


def _operation(
    method: str, path: str, handler: Callable[..., Any], summary: str, scope: Scope, **more: Any
) -> Operation:
    return Operation(
        method=method,
        path=path,
        handler=handler,
        summary=summary,
        scope=scope,
        tag=_TAG,
        style=ErrorStyle.STUDIO,
        **more,
    )


def _for_users(base: str, scope: Scope, *, is_hidden: bool = False) -> list[Operation]:
    return [
        _operation(
            "GET",
            f"{base}/{{id}}/stream",
            stream_agent,
            "Talk with an agent: opens a session, or goes on with one, and streams what is answered",
            scope,
            query=_SessionQuery,
            is_stream=True,
            errors=(404,),
            is_hidden=is_hidden,
        ),
        _operation(
            "POST",
            f"{base}/{{id}}/message",
            post_message,
            "Say something in a session; the answer appears on its streams",
            scope,
            body=MessageRequest,
            query=_SessionQuery,
            result=dict[str, Any],
            errors=(404, 409),
            is_hidden=is_hidden,
        ),
    ]


def _lists(base: str, scope: Scope) -> list[Operation]:
    return [
        _operation("GET", base, list_agents, "List agents", scope, query=ListQuery, result=dict[str, Any]),
        _operation("GET", f"{base}/{{id}}", get_agent, "Get an agent", scope, result=dict[str, Any], errors=(404,)),
    ]


def _denied(verb: str) -> dict[str, Any]:
    return {"denied": f"Only administrators can {verb} agent configs", "result": dict[str, Any]}


def _administration() -> list[Operation]:
    admin, one = Scope.ADMIN, f"{_ADMIN_PATH}/{{id}}"
    refused = (404, 409, 422)
    return [
        _operation(
            "POST",
            _ADMIN_PATH,
            create_agent,
            "Declare an agent",
            admin,
            body=AgentConfigRequest,
            status=201,
            errors=(409, 422),
            **_denied("create"),
        ),
        _operation(
            "PUT",
            one,
            update_agent,
            "Change an agent",
            admin,
            body=AgentConfigRequest,
            errors=refused,
            **_denied("update"),
        ),
        _operation("DELETE", one, delete_agent, "Delete an agent", admin, errors=refused, **_denied("delete")),
        _operation(
            "POST",
            f"{one}/activate",
            activate_agent,
            "Switch an agent on",
            admin,
            errors=refused,
            **_denied("activate"),
        ),
        _operation(
            "POST",
            f"{one}/deactivate",
            deactivate_agent,
            "Switch an agent off",
            admin,
            errors=refused,
            **_denied("deactivate"),
        ),
    ]


def _plugins() -> list[Operation]:
    admin, one = Scope.ADMIN, f"{_PLUGINS}/{{id}}"
    answers = {"result": dict[str, Any]}
    return [
        _operation("GET", _PLUGINS, list_plugins, "List agent plugins", admin, query=ListQuery, **answers),
        _operation("GET", one, get_plugin, "Get an agent plugin", admin, errors=(404,), **answers),
        _operation(
            "POST",
            _PLUGINS,
            create_plugin,
            "Declare a compiled plugin that lies in the workers' plugin folder",
            admin,
            body=PluginRequest,
            status=201,
            errors=(409, 422),
            **answers,
        ),
        _operation(
            "PUT",
            one,
            update_plugin,
            "Change a declared plugin",
            admin,
            body=PluginRequest,
            errors=(404, 409, 422),
            **answers,
        ),
        _operation("DELETE", one, delete_plugin, "Delete a declared plugin", admin, errors=(404, 409), **answers),
    ]


OPERATIONS: tuple[Operation, ...] = (
    *_lists(_USER_PATHS[0], Scope.AGENTS_USE),
    *_for_users(_USER_PATHS[0], Scope.AGENTS_USE),
    *_for_users(_USER_PATHS[1], Scope.AGENTS_USE, is_hidden=True),
    *_lists(_ADMIN_PATH, Scope.ADMIN),
    *_for_users(_ADMIN_PATH, Scope.ADMIN, is_hidden=True),
    *_administration(),
    *_plugins(),
)
