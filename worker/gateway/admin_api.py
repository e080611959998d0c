"""Agents, apps, models and groups over HTTP: `/v1/agents`, `/v1/apps`, `/v1/llms`, `/v1/groups`.

`ETag` is the version; a write with `If-Match` is done only if the object is at that version still, else it is 412.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from queue_backends.messages import JsonObject
from worker.agents.listing import Wanted, fits, page_of
from worker.agents.model import Agent, App, Group, Llm
from worker.gateway.admin_requests import (
    AgentFilter,
    Filter,
    Kind,
    Rollback,
    Versions,
    VersionsWanted,
    VersionView,
    Where,
)
from worker.gateway.admin_rights import check_fenced, check_may_declare, namespace_for
from worker.gateway.admin_views import ObjectPage, ObjectView, sees_internals, view_of, visible
from worker.gateway.caller import Scope
from worker.gateway.etags import as_precondition, etag_of, expected_version, tags_of
from worker.gateway.operation import Answer, Call, Handler, Operation
from worker.gateway.problem import Problem
from worker.objects import ObjectNotFound, Stored
from worker.objects.slug import slugified

# Reading


async def list_objects(kind: Kind, call: Call) -> ObjectPage[Any]:
    """Those that the caller may know of."""
    query, caller = call.query, call.caller
    if query.namespace is not None:
        namespace_for(caller, query.namespace)
    wanted = Wanted(
        namespace=query.namespace,
        is_active=query.is_active,
        text=query.text,
        app=getattr(query, "app", ""),
        plugin=getattr(query, "plugin", ""),
    )
    found = [stored for stored in visible(call.gateway, kind.noun, caller) if fits(stored.value, wanted)]
    page = page_of(found, page=query.page, limit=query.limit)
    items = tuple(_view(kind, call, stored) for stored in page.items)
    return ObjectPage(items=items, total=page.total, page=page.page, limit=page.limit)


async def show(kind: Kind, call: Call) -> Answer:
    """One of them, by slug or id: the namespace's own, or else everybody's."""
    stored = _seen(kind, call)
    etag = etag_of(stored)
    if etag in tags_of(call.request.headers.get("if-none-match", "")):
        return Answer(status=304, headers={"ETag": etag})
    return Answer(value=_view(kind, call, stored), headers={"ETag": etag})


async def versions(kind: Kind, call: Call) -> Versions:
    """What it was."""
    namespace = namespace_for(call.caller, call.query.namespace)
    if not sees_internals(call.caller, namespace):
        raise Problem(403, "what an object was is shown to administrators alone", code="access_denied")
    slug = _slug_of(kind, call, namespace)
    found = await kind.registrar(call).versions(slug, namespace, limit=call.query.limit)
    return Versions(
        items=tuple(
            VersionView(
                version=each.version,
                updated_at=each.updated_at,
                updated_by=each.updated_by,
                definition=each.value,
            )
            for each in found
        )
    )


# Writing


async def create(kind: Kind, call: Call) -> Answer:
    """Make one; without a slug, it is made of the name."""
    check_may_declare(call.caller, kind.noun)
    value = _owned(kind, call, call.body, namespace_for(call.caller, call.body.namespace))
    registrar = kind.registrar(call)
    warnings = await registrar.warnings(value)
    stored = await registrar.create(value, by=_by(call))
    where = f"/v1/{kind.plural}/{stored.value.slug}" + (f"?namespace={value.namespace}" if value.namespace else "")
    view = view_of(stored, call.caller, warnings=warnings)
    return Answer(value=view, status=201, headers={"ETag": etag_of(stored), "Location": where})


async def replace(kind: Kind, call: Call) -> Answer:
    """Make it be like the body."""
    namespace, slug = _addressed(kind, call)
    value = _owned(kind, call, call.body, namespace)
    if value.slug != slug:
        raise Problem(422, f"the body's slug is {value.slug!r}, the path's is {slug!r}: slugs do not change")
    registrar = kind.registrar(call)
    warnings = await registrar.warnings(value)
    with as_precondition():
        stored = await registrar.update(value, expected_version=expected_version(call), by=_by(call))
    return Answer(value=view_of(stored, call.caller, warnings=warnings), headers={"ETag": etag_of(stored)})


async def patch(kind: Kind, call: Call) -> Answer:
    """Change it by a JSON merge patch."""
    namespace, slug = _addressed(kind, call)
    with as_precondition():
        stored = await kind.registrar(call).merge(
            slug,
            call.body,
            namespace,
            expected_version=expected_version(call),
            by=_by(call),
            allow=lambda value: check_fenced(call.caller, value),
        )
    return _changed(call, stored)


async def delete(kind: Kind, call: Call) -> Answer:
    """Delete one that nothing refers to."""
    namespace, slug = _addressed(kind, call)
    with as_precondition():
        await kind.registrar(call).delete(slug, namespace, expected_version=expected_version(call))
    return Answer(status=204)


async def activate(kind: Kind, call: Call) -> Answer:
    """Switch it on."""
    namespace, slug = _addressed(kind, call)
    registrar = kind.registrar(call)
    check_fenced(call.caller, registrar.known(slug, namespace).value)
    return _changed(call, await registrar.activate(slug, namespace, by=_by(call)))


async def deactivate(kind: Kind, call: Call) -> Answer:
    """Switch it off."""
    namespace, slug = _addressed(kind, call)
    return _changed(call, await kind.registrar(call).deactivate(slug, namespace, by=_by(call)))


async def roll_back(kind: Kind, call: Call) -> Answer:
    """Make an earlier version the present one."""
    check_may_declare(call.caller, kind.noun)
    namespace = namespace_for(call.caller, call.query.namespace)
    slug = _slug_of(kind, call, namespace)
    stored = await kind.registrar(call).rollback(
        slug, call.body.version, namespace, by=_by(call), allow=lambda value: check_fenced(call.caller, value)
    )
    return _changed(call, stored)


# What they share


def _view(kind: Kind, call: Call, stored: Stored[Any]) -> ObjectView[Any]:
    return view_of(
        stored, call.caller, is_setting=kind.noun == "agent" and call.gateway.roster.is_from_settings(stored)
    )


def _changed(call: Call, stored: Stored[Any]) -> Answer:
    return Answer(value=view_of(stored, call.caller), headers={"ETag": etag_of(stored)})


def _seen(kind: Kind, call: Call) -> Stored[Any]:
    namespace, reference = namespace_for(call.caller, call.query.namespace), call.path["slug"]
    known = visible(call.gateway, kind.noun, call.caller)
    by_slug = [each for each in known if each.value.slug == reference]
    for wanted in (namespace, ""):
        for each in by_slug:
            if each.value.namespace == wanted:
                return each
    found = next((each for each in known if str(each.id) == reference), None)
    if found is None or (namespace and found.value.namespace not in ("", namespace)):
        raise ObjectNotFound(f"there is no {kind.noun} {reference[:100]!r}")
    return found


def _addressed(kind: Kind, call: Call) -> tuple[str, str]:
    """Namespace and slug of the object that is to be changed. Raises `Problem` 403 or 409, `ObjectNotFound`."""
    check_may_declare(call.caller, kind.noun)
    namespace = namespace_for(call.caller, call.query.namespace)
    reference = call.path["slug"]
    try:
        stored = kind.registrar(call).known(reference, namespace)
    except ObjectNotFound:
        if kind.noun == "agent" and not namespace and call.gateway.roster.from_settings(reference) is not None:
            raise Problem(
                409,
                f"agent {reference!r} is part of the settings, which are not changed here: create an agent of that "
                "slug, and it counts instead",
                code="agent_of_settings",
            ) from None
        raise
    return namespace, stored.value.slug


def _slug_of(kind: Kind, call: Call, namespace: str) -> str:
    """The slug that a path means, also of an object that is deleted."""
    try:
        slug: str = kind.registrar(call).known(call.path["slug"], namespace).value.slug
    except ObjectNotFound:
        return call.path["slug"]
    return slug


def _owned(kind: Kind, call: Call, value: Any, namespace: str) -> Any:
    """The body's object, in the namespace that it belongs to. Raises `Problem` 403 if that is not the caller's."""
    namespace_for(call.caller, value.namespace)
    if value.namespace not in ("", namespace):
        raise Problem(422, f"the body's namespace is {value.namespace!r}, the query's is {namespace!r}")
    owned = kind.registrar(call).read({**_plain(value), "namespace": namespace})
    check_fenced(call.caller, owned)
    return owned


def _plain(value: Any) -> dict[str, Any]:
    plain = {name: getattr(value, name) for name in value.__struct_fields__}
    if not plain["slug"]:
        plain["slug"] = slugified(plain["name"])
    return plain


def _by(call: Call) -> str:
    return call.caller.name or call.caller.id


# The operations


KINDS = (
    Kind("agent", "agents", Agent, "Agents"),
    Kind("app", "apps", App, "Apps and models"),
    Kind("llm", "llms", Llm, "Apps and models"),
    Kind("group", "groups", Group, "Apps and models", switches=False),
)


def operations_of(kind: Kind) -> Iterator[Operation]:
    """What is done to objects of one kind."""
    base, one = f"/v1/{kind.plural}", f"/v1/{kind.plural}/{{slug}}"
    view, page = ObjectView[kind.of], ObjectPage[kind.of]  # type: ignore[name-defined]  # a type known at run time only
    a = f"an {kind.noun}" if kind.noun[0] in "a" else f"a {kind.noun}"

    def of(handler: Callable[[Kind, Call], Any]) -> Handler:
        async def handle(call: Call) -> Any:
            return await handler(kind, call)

        return handle

    def operation(method: str, path: str, handler: Callable[[Kind, Call], Any], summary: str, **more: Any) -> Operation:
        given: dict[str, Any] = {"scope": Scope.ADMIN, "query": Where, "result": view, "tag": kind.tag, **more}
        return Operation(method=method, path=path, handler=of(handler), summary=summary, **given)

    query = AgentFilter if kind.noun == "agent" else Filter
    changing = {"errors": (404, 409, 412, 415, 422)}
    use = Scope.AGENTS_USE
    yield operation("GET", base, list_objects, f"List {kind.plural}", scope=use, query=query, result=page)
    yield operation("POST", base, create, f"Create {a}", body=kind.of, query=None, status=201, errors=(409, 415, 422))
    yield operation("GET", one, show, f"Show {a}", scope=use, errors=(304, 404))
    yield operation("PUT", one, replace, f"Replace {a}", body=kind.of, **changing)
    yield operation("PATCH", one, patch, f"Change {a} by a JSON merge patch", body=JsonObject, **changing)
    yield operation(
        "DELETE", one, delete, f"Delete {a} that nothing refers to", result=None, status=204, errors=(404, 409, 412)
    )
    if kind.switches:
        yield operation("POST", f"{one}/activate", activate, f"Switch {a} on", errors=(404, 409, 422))
        yield operation("POST", f"{one}/deactivate", deactivate, f"Switch {a} off", errors=(404, 409, 422))
    yield operation(
        "GET",
        f"{one}/versions",
        versions,
        f"List what {a} was",
        query=VersionsWanted,
        result=Versions,
        errors=(404,),
    )
    yield operation(
        "POST",
        f"{one}/rollback",
        roll_back,
        f"Make an earlier version of {a} the present one",
        body=Rollback,
        errors=(404, 409, 415, 422),
    )


OPERATIONS: tuple[Operation, ...] = tuple(operation for kind in KINDS for operation in operations_of(kind))
