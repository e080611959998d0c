"""API keys over HTTP: `/v1/keys`, for administrators."""

from __future__ import annotations

from msgspec import Struct

from worker.gateway.caller import Caller, Scope
from worker.gateway.key_view import KeyView, view_of
from worker.gateway.keys import ApiKey
from worker.gateway.operation import Answer, Call, Operation
from worker.gateway.problem import Problem
from worker.objects import Stored

MOST_OF_ONE = 1000
"""Keys of one tenant or app that its own administrators can make."""


class KeyRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to be created."""

    name: str
    """For people: what it is for."""
    scopes: list[Scope]
    groups: list[str] = []
    tenant: str = ""
    app: str = ""
    expires_at: float | None = None
    """Unix seconds."""
    requests_per_minute: int | None = None
    """0: no limit; absent: the gateway's own."""


class KeyList(Struct, frozen=True, kw_only=True):
    """All keys, the newest first."""

    keys: list[KeyView]


async def create(call: Call) -> Answer:
    """Create a key and show it, once."""
    wanted: KeyRequest = call.body
    keys = call.gateway.keys
    _check_grant(call.caller, wanted)
    _check_room(call)
    made, secret = await keys.create(
        wanted.name,
        wanted.scopes,
        wanted.groups,
        call.caller.tenant or wanted.tenant,
        wanted.app,
        wanted.expires_at,
        requests_per_minute=wanted.requests_per_minute,
        by=call.caller.name or call.caller.id,
    )
    view = await view_of(keys, keys.get(made.slug), secret=secret)
    return Answer(value=view, status=201, headers={"Location": f"/v1/keys/{made.slug}"})


async def list_all(call: Call) -> KeyList:
    """All keys that the caller may see."""
    keys = call.gateway.keys
    return KeyList(keys=[await view_of(keys, each) for each in keys.all() if _is_open(call.caller, each.value)])


async def show(call: Call) -> KeyView:
    """One key."""
    return await view_of(call.gateway.keys, _found(call))


async def revoke(call: Call) -> KeyView:
    """Make a key useless, on every gateway within about a second."""
    found = _found(call)
    keys = call.gateway.keys
    return await view_of(keys, await keys.revoke(found.value.slug, by=call.caller.name or call.caller.id))


def _found(call: Call) -> Stored[ApiKey]:
    found = call.gateway.keys.get(call.path["id"])
    if not _is_open(call.caller, found.value):
        raise Problem(404, f"there is no key {call.path['id'][:100]!r}", code="object_not_found")
    return found


def _is_open(caller: Caller, key: ApiKey) -> bool:
    """An administrator of one tenant, or of one app, sees its keys alone."""
    return caller.tenant in ("", key.tenant) and caller.app in ("", key.app)


def _check_grant(caller: Caller, wanted: KeyRequest) -> None:
    """Nobody gives away more than he has. Raises `Problem` 403."""
    if caller.tenant and wanted.tenant not in ("", caller.tenant):
        raise Problem(403, f"you may create keys for the tenant {caller.tenant!r} alone", code="access_denied")
    if caller.app and wanted.app != caller.app:
        raise Problem(403, f"you may create keys for the app {caller.app!r} alone", code="access_denied")


def _check_room(call: Call) -> None:
    """One tenant's or app's administrator leaves room for the others' keys. Raises `Problem` 409."""
    caller = call.caller
    if not (caller.tenant or caller.app):
        return
    if sum(_is_open(caller, each.value) for each in call.gateway.keys.all()) >= MOST_OF_ONE:
        raise Problem(
            409,
            f"there are {MOST_OF_ONE} keys of your tenant or app, revoked ones of the last 90 days among them: use "
            "those there are",
            code="too_many_keys",
        )


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/keys",
        handler=list_all,
        summary="List API keys",
        scope=Scope.ADMIN,
        tag="Keys",
        result=KeyList,
    ),
    Operation(
        method="POST",
        path="/v1/keys",
        handler=create,
        summary="Create an API key; it is shown once",
        scope=Scope.ADMIN,
        tag="Keys",
        body=KeyRequest,
        result=KeyView,
        status=201,
        errors=(409, 422),
    ),
    Operation(
        method="GET",
        path="/v1/keys/{id}",
        handler=show,
        summary="Show an API key, without its secret",
        scope=Scope.ADMIN,
        tag="Keys",
        result=KeyView,
        errors=(404,),
    ),
    Operation(
        method="DELETE",
        path="/v1/keys/{id}",
        handler=revoke,
        summary="Revoke an API key",
        scope=Scope.ADMIN,
        tag="Keys",
        result=KeyView,
        errors=(404,),
    ),
)
