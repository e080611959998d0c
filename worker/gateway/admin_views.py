"""What the admin API shows of declared objects, and to whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

from msgspec import UNSET, Struct, UnsetType

from worker.agents.model import App
from worker.agents.resolution import llms_of
from worker.gateway.caller import Caller, Scope
from worker.gateway.context import Gateway
from worker.objects import Stored

T = TypeVar("T")


class ObjectView(Struct, Generic[T], frozen=True, kw_only=True):
    """One object. What it is made of is for administrators, and so is who changed it."""

    id: int
    slug: str
    name: str
    namespace: str = ""
    description: str = ""
    is_active: bool = True
    is_setting: bool = False
    """It is part of the settings, and no object that could be changed here."""
    version: int | UnsetType = UNSET
    created_at: float | UnsetType = UNSET
    """Unix seconds, as the other one."""
    updated_at: float | UnsetType = UNSET
    updated_by: str | UnsetType = UNSET
    definition: T | UnsetType = UNSET
    """What `PUT` takes."""
    warnings: tuple[str, ...] | UnsetType = UNSET
    """What is odd about it; in the answer to a change alone."""


class ObjectPage(Struct, Generic[T], frozen=True, kw_only=True):
    """Some of the objects, the newest first."""

    items: tuple[ObjectView[T], ...]
    total: int
    page: int
    limit: int


def view_of(
    stored: Stored[Any], caller: Caller, *, warnings: Sequence[str] = (), is_setting: bool = False
) -> ObjectView[Any]:
    """An object as this caller may see it."""
    value = stored.value
    internals: dict[str, Any] = {}
    if sees_internals(caller, value.namespace):
        internals = {"version": stored.version, "updated_by": stored.updated_by, "definition": value}
        if not is_setting:
            internals |= {"created_at": stored.created_at, "updated_at": stored.updated_at}
    return ObjectView(
        id=stored.id,
        slug=value.slug,
        name=value.name or value.slug,
        namespace=value.namespace,
        description=value.description,
        is_active=getattr(value, "is_active", True),
        is_setting=is_setting,
        warnings=tuple(warnings) or UNSET,
        **internals,
    )


def sees_internals(caller: Caller, namespace: str) -> bool:
    """Whether what an object is made of is shown: an administrator of one tenant sees its own alone."""
    return Scope.ADMIN in caller.scopes and not caller.app and caller.tenant in ("", namespace)


def visible(gateway: Gateway, kind: str, caller: Caller) -> Sequence[Stored[Any]]:
    """The objects of a kind that a caller may know of, the newest first."""
    is_admin = Scope.ADMIN in caller.scopes and not caller.app
    if kind == "agent":
        if is_admin:
            return [each for each in gateway.roster.all() if each.value.namespace in _namespaces(caller, each)]
        return gateway.roster.visible_to(caller)
    stores: dict[str, Any] = {
        "app": gateway.definitions.apps,
        "llm": gateway.definitions.llms,
        "datasource": gateway.definitions.datasources,
        "group": gateway.definitions.groups,
        "team": gateway.definitions.teams,
        "trigger": gateway.definitions.triggers,
        "notify": gateway.definitions.notifies,
    }
    found: Sequence[Stored[Any]] = [
        each for each in stores[kind].all() if each.value.namespace in _namespaces(caller, each)
    ]
    if is_admin:
        return found
    if kind in ("team", "trigger", "notify"):
        return []
    if kind == "group":
        return [each for each in found if each.value.slug in caller.groups]
    if kind == "datasource":
        searched = {id(source) for source in _datasources(gateway, caller)}
        return [each for each in found if each.value.is_active and id(each) in searched]
    apps = {id(app): app for app in _apps(gateway, caller)}
    if kind == "app":
        return [each for each in found if id(each.value) in apps]
    usable = {id(llm) for app in apps.values() for llm in llms_of(app, gateway.definitions)}
    return [each for each in found if id(each.value) in usable]


def _namespaces(caller: Caller, each: Stored[Any]) -> tuple[str, ...]:
    return ("", caller.tenant) if caller.tenant else (each.value.namespace,)


def _datasources(gateway: Gateway, caller: Caller) -> Iterator[Stored[Any] | None]:
    """What the caller's agents and apps may search."""
    known = gateway.definitions.datasources
    for app in {id(app): app for app in _apps(gateway, caller)}.values():
        yield from (known.visible(slug, app.namespace) for slug in app.datasources)
    for agent in gateway.roster.visible_to(caller):
        if not agent.value.app:
            yield from (known.visible(slug, agent.value.namespace) for slug in agent.value.datasources or ())


def _apps(gateway: Gateway, caller: Caller) -> Iterator[App]:
    """The apps that a caller's agents belong to, and the one whose key it has."""
    for agent in gateway.roster.visible_to(caller):
        if (app := gateway.roster.app_of(agent.value)) is not None:
            yield app
    own = gateway.definitions.apps.visible(caller.app, caller.tenant) if caller.app else None
    if own is not None:
        yield own.value
