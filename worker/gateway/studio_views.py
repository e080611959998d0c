"""AI Studio's JSON: agents, plugins and apps under the numbers that it knows them by.

Source: `api/agent_handler.go`, `models/agent_config.go` and `models/plugin.go` of AI Studio. Its records show the
database's own fields (`ID`, `CreatedAt`, …) beside the others; clients use `id`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from queue_backends.messages import JsonObject
from worker.agent_plugins.declared import FIRST_NUMBER, DeclaredPlugin
from worker.agent_plugins.errors import PluginNotFound
from worker.agent_plugins.package import PluginPackage
from worker.agents.model import Agent, App, Group
from worker.gateway.admin_views import sees_internals
from worker.gateway.caller import Caller, Scope
from worker.gateway.context import Gateway
from worker.objects import Stored

MODEL_PLUGIN = 1
"""Number of the plugin that stands for agents that are a model with a prompt and tools, and no code."""
MODEL_FIELDS = ("system_prompt", "llm", "model", "route", "tools", "datasources", "settings", "memory", "budget")
"""Fields of such an agent that Studio's API has in `config`."""

_MODEL_PLUGIN_JSON: JsonObject = {
    "id": MODEL_PLUGIN,
    "name": "Model agent",
    "slug": "model",
    "description": "A model with a prompt, tools and data sources; its config has " + ", ".join(MODEL_FIELDS),
    "command": "",
    "hook_type": "agent",
    "hook_types": ["agent"],
    "plugin_type": "agent",
    "is_active": True,
    "namespace": "",
    "config": {},
}


class AgentConfigRequest(Struct, frozen=True, kw_only=True):
    """An agent, as Studio's API takes it. Unknown fields are skipped."""

    name: str = ""
    description: str = ""
    plugin_id: int = 0
    app_id: int = 0
    config: JsonObject | None = None
    group_ids: tuple[int, ...] | None = None
    is_active: bool | None = None
    namespace: str = ""


class PluginRequest(Struct, frozen=True, kw_only=True):
    """A plugin, as Studio's API takes it. Unknown fields, and those of other kinds of plugins, are skipped."""

    name: str = ""
    command: str = ""
    description: str = ""
    checksum: str = ""
    config: JsonObject | None = None
    hook_type: str = ""
    hook_types: tuple[str, ...] = ()
    is_active: bool | None = None
    namespace: str = ""
    oci_reference: str = ""


class HistoryMessage(Struct, frozen=True, kw_only=True):
    """What was said before, as a client keeps it itself."""

    role: str
    content: str


class MessageRequest(Struct, frozen=True, kw_only=True):
    """What the user says."""

    message: str = ""
    history: tuple[HistoryMessage, ...] = ()
    session_id: str = ""
    """Ignored: the query's counts."""


class ListQuery(Struct, frozen=True, kw_only=True):
    """Which part of a list; what is out of bounds counts as the default."""

    page: int = 1
    limit: int = 10
    namespace: str = ""


ALL_NAMESPACES = "__ALL_NAMESPACES__"


def agent_json(gateway: Gateway, stored: Stored[Agent], caller: Caller) -> JsonObject:
    """An agent. What it is made of, its `config`, is shown to administrators alone."""
    agent = stored.value
    plugin = plugin_json_of(gateway, agent.plugin, caller)
    app = gateway.definitions.apps.visible(agent.app, agent.namespace) if agent.app else None
    groups = [gateway.definitions.groups.visible(slug, agent.namespace) for slug in agent.groups]
    return {
        **_record(stored),
        "id": stored.id,
        "name": agent.title,
        "slug": agent.slug,
        "description": agent.description,
        "plugin_id": plugin["id"],
        "plugin": plugin,
        "app_id": app.id if app is not None else 0,
        "app": _app_json(app) if app is not None else None,
        "config": config_of(agent) if sees_internals(caller, agent.namespace) else {},
        "groups": [_group_json(group) for group in groups if group is not None],
        "is_active": agent.is_active,
        "namespace": agent.namespace,
    }


def config_of(agent: Agent) -> JsonObject:
    """What Studio calls the agent's config."""
    if agent.plugin:
        return dict(agent.config)
    plain: JsonObject = msgspec.to_builtins(agent)
    return {name: plain[name] for name in MODEL_FIELDS if name in plain}


def plugin_json_of(gateway: Gateway, plugin_id: str, caller: Caller) -> JsonObject:
    """The plugin of an agent; empty: the one that stands for model agents."""
    if not plugin_id:
        return _MODEL_PLUGIN_JSON
    try:
        return package_json(gateway.plugins.get(plugin_id))
    except PluginNotFound:
        declared = gateway.definitions.plugins.get(plugin_id)
        if declared is not None:
            return declared_json(declared, caller)
        return {"id": 0, "name": plugin_id, "slug": plugin_id, "hook_type": "agent", "is_active": False}


def all_plugins(gateway: Gateway, caller: Caller) -> list[JsonObject]:
    """All plugins: the declared ones, the newest first, the installed ones, and that of model agents."""
    declared = [declared_json(each, caller) for each in gateway.definitions.plugins.all()]
    return [*declared, *map(package_json, gateway.plugins.all()), _MODEL_PLUGIN_JSON]


def package_json(package: PluginPackage) -> JsonObject:
    """An installed plugin."""
    return {
        "id": package.number,
        "name": package.manifest.name or package.id,
        "slug": package.id,
        "description": package.manifest.description,
        "command": package.manifest.command,
        "hook_type": "agent",
        "hook_types": list(package.manifest.hooks),
        "plugin_type": "agent",
        "is_active": package.is_usable,
        "namespace": "",
        "config": {},
        "config_schema": package.schema.schema,
        "service_scopes": sorted(package.scopes),
        "version": package.manifest.version,
        "load_error": package.problem,
    }


def declared_json(stored: Stored[DeclaredPlugin], caller: Caller) -> JsonObject:
    """A declared plugin. What it is started with, its `config`, is shown to administrators of the whole fleet alone."""
    plugin = stored.value
    sees_config = caller.may(Scope.ADMIN) and not (caller.tenant or caller.app)
    return {
        **_record(stored),
        "ID": FIRST_NUMBER + stored.id,
        "id": FIRST_NUMBER + stored.id,
        "name": plugin.name or plugin.slug,
        "slug": plugin.slug,
        "description": plugin.description,
        "command": plugin.command,
        "checksum": plugin.checksum,
        "hook_type": plugin.hook_types[0] if plugin.hook_types else "agent",
        "hook_types": list(plugin.hook_types),
        "plugin_type": "agent",
        "is_active": plugin.is_active,
        "namespace": plugin.namespace,
        "config": plugin.config if sees_config else {},
    }


def _app_json(stored: Stored[App]) -> JsonObject:
    app = stored.value
    return {
        "id": stored.id,
        "name": app.name or app.slug,
        "slug": app.slug,
        "description": app.description,
        "is_active": app.is_active,
        "namespace": app.namespace,
    }


def _group_json(stored: Stored[Group]) -> JsonObject:
    return {"id": stored.id, "name": stored.value.name or stored.value.slug}


def _record(stored: Stored[Any]) -> JsonObject:
    return {
        "ID": stored.id,
        "CreatedAt": _moment(stored.created_at),
        "UpdatedAt": _moment(stored.updated_at),
        "DeletedAt": None,
    }


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
