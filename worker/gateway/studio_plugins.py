"""Plugins through AI Studio's API: the installed ones, and programs that are declared."""

from __future__ import annotations

from queue_backends.messages import JsonObject
from worker.agent_plugins.declared import FIRST_NUMBER, DeclaredPlugin
from worker.gateway.admin_rights import check_may_declare
from worker.gateway.operation import Answer, Call
from worker.gateway.problem import Problem
from worker.gateway.studio_views import PluginRequest, all_plugins, declared_json
from worker.objects import BadObject, ObjectExists, Stored, slugified


async def list_plugins(call: Call) -> JsonObject:
    """All plugins, a page of them."""
    page, limit = max(call.query.page, 1), call.query.limit if 1 <= call.query.limit <= 100 else 10
    plugins = all_plugins(call.gateway, call.caller)
    return {
        "data": plugins[(page - 1) * limit : page * limit],
        "meta": {"page": page, "limit": limit, "total": len(plugins)},
    }


async def get_plugin(call: Call) -> JsonObject:
    """One of them."""
    number = _number(call)
    for plugin in all_plugins(call.gateway, call.caller):
        if plugin["id"] == number:
            return {"data": plugin}
    raise _not_found()


async def create_plugin(call: Call) -> Answer:
    """Declare a program."""
    body: PluginRequest = call.body
    check_may_declare(call.caller, "plugin")
    plugin = DeclaredPlugin(slug=slugified(body.name), **_fields(body))
    try:
        stored = await call.gateway.definitions.plugins.create(plugin, by=call.caller.name or call.caller.id)
    except ObjectExists as error:
        raise Problem(409, str(error), title="Database error") from error
    except BadObject as error:
        raise Problem(400, str(error), title="Security Validation Failed") from error
    return Answer(value={"data": declared_json(stored, call.caller)}, status=201)


async def update_plugin(call: Call) -> JsonObject:
    """Another program, config or state under the same number."""
    stored = _declared(call)
    body: PluginRequest = call.body
    plugin = DeclaredPlugin(slug=stored.value.slug, **_fields(body))
    try:
        changed = await call.gateway.definitions.plugins.update(plugin, by=call.caller.name or call.caller.id)
    except BadObject as error:
        raise Problem(400, str(error), title="Security Validation Failed") from error
    return {"data": declared_json(changed, call.caller)}


async def delete_plugin(call: Call) -> JsonObject:
    """No longer declared."""
    stored = _declared(call)
    users = [each.value.slug for each in call.gateway.roster.all() if each.value.plugin == stored.value.slug]
    if users:
        raise Problem(409, f"agents use it: {', '.join(users[:10])}", title="Database error")
    await call.gateway.definitions.plugins.delete(stored.value.slug)
    return {"message": "Plugin deleted successfully"}


def _fields(body: PluginRequest) -> JsonObject:
    for field in ("name", "command"):
        if not getattr(body, field).strip():
            raise Problem(400, f"{field} is required", title="Invalid request")
    if body.oci_reference or "://" in body.command.removeprefix("file://"):
        raise Problem(
            400,
            "only programs in the workers' folder of agent plugins are started: images and addresses are not",
            title="Security Validation Failed",
        )
    hooks = body.hook_types or ((body.hook_type,) if body.hook_type else ("agent",))
    if "agent" not in hooks:
        raise Problem(400, "Plugin does not support agent hook type", title="Invalid plugin type")
    if body.namespace:
        raise Problem(400, "plugins belong to the whole fleet: leave namespace out", title="Invalid request")
    return {
        "name": body.name,
        "description": body.description,
        "command": body.command.removeprefix("file://"),
        "checksum": body.checksum,
        "config": body.config or {},
        "hook_types": tuple(hooks),
        "is_active": body.is_active is not False,
    }


def _number(call: Call) -> int:
    number = call.path["id"]
    if not (number.isascii() and number.isdigit() and len(number) <= 10):
        raise Problem(400, "Plugin ID must be a valid number", title="Invalid plugin ID")
    return int(number)


def _declared(call: Call) -> Stored[DeclaredPlugin]:
    check_may_declare(call.caller, "plugin")
    number = _number(call)
    stored = call.gateway.definitions.plugins.by_id(number - FIRST_NUMBER)
    if stored is not None:
        return stored
    if any(plugin["id"] == number for plugin in all_plugins(call.gateway, call.caller)):
        raise Problem(
            409, "this plugin is installed with the workers: change or remove it there", title="Database error"
        )
    raise _not_found()


def _not_found() -> Problem:
    return Problem(404, "Plugin not found", title="Plugin not found")
