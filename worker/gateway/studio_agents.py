"""Agents through AI Studio's API: listed and shown to users, declared by administrators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from queue_backends.messages import JsonObject
from worker.agent_plugins.errors import PluginNotFound
from worker.agents.errors import AgentInactive
from worker.agents.model import Agent, App
from worker.errors import AccessDenied, AgentNotFound
from worker.gateway.admin_rights import check_may_declare, namespace_for
from worker.gateway.operation import Answer, Call
from worker.gateway.problem import Problem
from worker.gateway.studio_views import (
    ALL_NAMESPACES,
    MODEL_FIELDS,
    MODEL_PLUGIN,
    AgentConfigRequest,
    agent_json,
)
from worker.objects import ObjectConflict, ObjectError, ObjectExists, Stored, slugified

_LAST_ID = 2**32


def agent_of(call: Call) -> Stored[Agent]:
    """The agent of the path's number, if the caller may know of it, active or not."""
    agent = _found(call)
    try:
        call.gateway.roster.check_access(agent, call.caller)
    except AgentInactive:
        return agent
    except AccessDenied as error:
        raise Problem(403, "You don't have access to this agent", title="Access denied") from error
    return agent


def _found(call: Call) -> Stored[Agent]:
    number = call.path["id"]
    if not (number.isascii() and number.isdigit() and int(number[:20]) < _LAST_ID):
        raise Problem(400, "Agent ID must be a valid number", title="Invalid agent ID")
    try:
        return call.gateway.roster.find(int(number), call.caller.tenant)
    except AgentNotFound as error:
        raise Problem(404, "No agent found with the provided ID", title="Agent not found") from error


async def list_agents(call: Call) -> JsonObject:
    """Those that the caller may know of, the newest first, a page of them."""
    query = call.query
    page, limit = max(query.page, 1), query.limit if 1 <= query.limit <= 100 else 10
    agents: Sequence[Stored[Agent]] = call.gateway.roster.visible_to(call.caller, with_inactive=True)
    if query.namespace not in ("", ALL_NAMESPACES):
        agents = [each for each in agents if each.value.namespace in ("", query.namespace)]
    shown = agents[(page - 1) * limit : page * limit]
    return {
        "data": [agent_json(call.gateway, each, call.caller) for each in shown],
        "meta": {"page": page, "limit": limit, "total": len(agents)},
    }


async def get_agent(call: Call) -> JsonObject:
    """One of them."""
    return {"data": agent_json(call.gateway, agent_of(call), call.caller)}


async def create_agent(call: Call) -> Answer:
    """A new agent."""
    body: AgentConfigRequest = call.body
    check_may_declare(call.caller, "agent")
    _check_required(body)
    namespace = namespace_for(call.caller, body.namespace)
    plugin, app = _plugin(call, body.plugin_id), _app(call, body.app_id, namespace)
    fields = {
        "slug": slugified(body.name),
        "name": body.name,
        "namespace": namespace,
        "description": body.description,
        "app": app.slug,
        "is_active": body.is_active is not False,
        "groups": _groups(call, body.group_ids or (), namespace),
        **_config_fields(plugin, body.config or {}),
    }
    agents = call.gateway.declarations.agents
    with _as_studio():
        stored = await agents.create(agents.read(fields), by=call.caller.name or call.caller.id)
    return Answer(value={"data": agent_json(call.gateway, stored, call.caller)}, status=201)


async def update_agent(call: Call) -> JsonObject:
    """An agent with other words, config, groups or state; its plugin, app and namespace stay."""
    body: AgentConfigRequest = call.body
    stored = _own(call)
    _check_required(body)
    agent = stored.value
    if body.namespace not in ("", agent.namespace):
        raise Problem(400, "an agent's namespace cannot be changed: create another agent", title="Invalid request")
    fields: JsonObject = {
        "name": body.name,
        "description": body.description,
        **{name: getattr(Agent(slug="x"), name) for name in (*MODEL_FIELDS, "config")},
        **_config_fields(agent.plugin, body.config or {}),
    }
    if body.group_ids is not None:
        fields["groups"] = _groups(call, body.group_ids, agent.namespace)
    if body.is_active is not None:
        fields["is_active"] = body.is_active
    changed = await _changed(call, stored, fields)
    return {"data": agent_json(call.gateway, changed, call.caller)}


async def delete_agent(call: Call) -> JsonObject:
    """No agent any more."""
    agent = _own(call).value
    with _as_studio():
        await call.gateway.declarations.agents.delete(agent.slug, agent.namespace)
    return {"message": "Agent config deleted successfully"}


async def _switch(is_active: bool, call: Call) -> JsonObject:
    await _changed(call, _own(call), {"is_active": is_active})
    return {"message": f"Agent config {'activated' if is_active else 'deactivated'} successfully"}


activate_agent: Callable[[Call], Any] = partial(_switch, True)
deactivate_agent: Callable[[Call], Any] = partial(_switch, False)


async def _changed(call: Call, stored: Stored[Agent], fields: JsonObject) -> Stored[Agent]:
    agent, by = stored.value, call.caller.name or call.caller.id
    with _as_studio():
        return await call.gateway.declarations.agents.change(agent.slug, agent.namespace, by=by, **fields)


def _own(call: Call) -> Stored[Agent]:
    """The agent of the path, if the caller may change it."""
    check_may_declare(call.caller, "agent")
    stored = agent_of(call)
    if call.gateway.roster.is_from_settings(stored):
        raise Problem(
            409,
            f"agent {stored.value.slug!r} is one of the settings file: change it there, or declare one of that name",
            title="Database error",
        )
    namespace_for(call.caller, stored.value.namespace)
    if call.caller.tenant and not stored.value.namespace:
        raise Problem(403, "You don't have access to this agent", title="Access denied")
    return stored


def _check_required(body: AgentConfigRequest) -> None:
    if not body.name.strip():
        raise Problem(400, "agent name is required", title="Invalid request")
    for field in ("plugin_id", "app_id"):
        if getattr(body, field) <= 0:
            raise Problem(400, f"{field} is required", title="Invalid request")


def _plugin(call: Call, number: int) -> str:
    """The id of a plugin that agents can run on; empty: the one that stands for model agents."""
    if number == MODEL_PLUGIN:
        return ""
    try:
        package = call.gateway.plugins.by_number(number)
    except PluginNotFound as error:
        raise Problem(400, "Plugin not found", title="Invalid plugin") from error
    if not package.is_usable:
        raise Problem(422, "plugin is not active", title="Database error")
    return package.id


def _app(call: Call, number: int, namespace: str) -> App:
    stored = call.gateway.definitions.apps.by_id(number)
    if stored is None or stored.value.namespace not in ("", namespace):
        raise Problem(400, "App not found", title="Invalid app")
    if not stored.value.is_active:
        raise Problem(422, "app is not active", title="Database error")
    if not stored.value.llms:
        raise Problem(422, "app must have at least one LLM", title="Database error")
    return stored.value


def _groups(call: Call, numbers: Sequence[int], namespace: str) -> tuple[str, ...]:
    """Slugs of the groups; unknown numbers are passed over, as Studio does."""
    found = [call.gateway.definitions.groups.by_id(number) for number in numbers]
    slugs = [each.value.slug for each in found if each is not None and each.value.namespace in ("", namespace)]
    if numbers and not slugs:  # without any group the agent would be open to everybody
        raise Problem(400, f"none of the groups {list(numbers)[:20]} exists", title="Invalid request")
    return tuple(dict.fromkeys(slugs))


def _config_fields(plugin: str, config: JsonObject) -> JsonObject:
    if plugin:
        return {"plugin": plugin, "config": config}
    if unknown := sorted(set(config) - set(MODEL_FIELDS)):
        known = ", ".join(MODEL_FIELDS)
        raise Problem(400, f"config has no {unknown[0][:100]!r}; it has {known}", title="Invalid request")
    return {"plugin": "", **config}


class _as_studio:  # noqa: N801 - it is used like a function
    """What is wrong with an object, in Studio's words. It answers 500 there, which here means a fault of ours."""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ObjectError):
            status = 409 if isinstance(error, ObjectExists | ObjectConflict) else 422
            raise Problem(status, str(error), title="Database error") from error
