"""Teams, triggers and notification policies over HTTP: `/v1/teams`, `/v1/triggers`, `/v1/notifies`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import replace

from worker.gateway.admin_api import operations_of
from worker.gateway.admin_requests import Kind, Where
from worker.gateway.admin_rights import check_may_declare, namespace_for
from worker.gateway.caller import Scope
from worker.gateway.etags import etag_of
from worker.gateway.foreign_files import read_foreign
from worker.gateway.operation import Answer, Call, Operation
from worker.gateway.problem import Problem
from worker.gateway.webhooks_api import TAG, Fired, told_of
from worker.objects import ObjectNotFound, ObjectStore, Stored
from worker.objects.slug import check_slug
from worker.teams.notify.model import Notify
from worker.teams.notify.service import DispatchView
from worker.teams.team_objects import Change, StoredTeam, apply
from worker.teams.triggers.errors import KeyReused, TriggerSuspended
from worker.teams.triggers.firing import FiringState
from worker.teams.triggers.model import Trigger
from worker.teams.triggers.status import TriggerStatus, webhook_path


class TokenView(Struct, frozen=True, kw_only=True):
    """A webhook's new token. It is shown this once."""

    trigger: str
    token: str
    path: str
    """Where to send it."""


class TeamFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A team file, to be stored whole."""

    text: Annotated[str, Meta(min_length=1, max_length=1_000_000)]
    """YAML, one or more documents."""
    namespace: str = ""


class Applied(Struct, frozen=True, kw_only=True):
    """What was stored."""

    changes: tuple[Change, ...]
    findings: tuple[str, ...] = ()
    """Warnings and notes about the file."""


class RunNow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the templates of a trigger see that is fired by hand."""

    body: Any = None
    """`.trigger.body`."""


class Statuses(Struct, frozen=True, kw_only=True):
    """Triggers as they stand."""

    items: tuple[TriggerStatus, ...]


class Dispatches(Struct, frozen=True, kw_only=True):
    """What became of the last message to each channel."""

    items: tuple[DispatchView, ...]


# What is shown of triggers, and what is done to them


async def statuses(call: Call) -> Statuses:
    """All triggers that the caller may see, as they stand."""
    tenant, triggers = call.caller.tenant, call.gateway.trigger_desk.triggers
    found = [
        stored
        for stored in call.gateway.definitions.triggers.all()
        if not call.caller.app and tenant in ("", stored.value.namespace)
    ]
    return Statuses(items=tuple([_without_firings(await triggers.status(stored)) for stored in found]))


async def status(call: Call) -> TriggerStatus:
    """One trigger as it stands, with what became of its last firings."""
    return await call.gateway.trigger_desk.triggers.status(_trigger(call))


async def suspend(call: Call) -> Answer:
    """Let it fire nothing until it is resumed."""
    return await _suspended(call, is_suspended=True)


async def resume(call: Call) -> Answer:
    """Let it fire again. What it missed meanwhile is not made up for."""
    return await _suspended(call, is_suspended=False)


async def make_token(call: Call) -> TokenView:
    """A new token for a webhook; the one before opens nothing any more."""
    stored = _trigger(call)
    token = await call.gateway.trigger_desk.triggers.tokens.make(stored)
    return TokenView(trigger=stored.value.slug, token=token, path=webhook_path(stored.value))


async def run_now(call: Call) -> Answer:
    """Fire any trigger once, now, whatever its type: with the body, if one is sent."""
    stored = _trigger(call)
    key = call.request.headers.get("idempotency-key", "")
    try:
        firing, is_new = await call.gateway.trigger_desk.triggers.fire(
            stored, source="manual", body=call.body.body, key=key
        )
    except KeyReused as error:
        raise Problem(422, str(error), code="idempotency_key_reused") from error
    except TriggerSuspended as error:
        raise Problem(409, str(error), code="trigger_suspended") from error
    return Answer(value=told_of(firing, is_new=is_new), status=202 if firing.state is FiringState.FIRED else 200)


async def dispatches(call: Call) -> Dispatches:
    """What became of the last message to each channel of a policy."""
    stored = _notify(call)
    return Dispatches(items=await call.gateway.notifications.dispatches(stored))


async def test_notify(call: Call) -> Answer:
    """Send a test to all channels of a policy."""
    await call.gateway.notifications.test(_notify(call))
    return Answer(status=202, value={"sent": True})


async def apply_file(call: Call) -> Applied:
    """Store all that a team file declares: teams, agents, triggers, notification policies."""
    check_may_declare(call.caller, "team")
    namespace = namespace_for(call.caller, call.body.namespace)
    if namespace:
        check_slug("namespace", namespace)
    bundle = read_foreign(call, call.body.text)
    changes = await apply(call.gateway.definitions, bundle, namespace, by=call.caller.name or call.caller.id)
    return Applied(changes=tuple(changes), findings=tuple(str(finding) for finding in bundle.findings)[:100])


async def _suspended(call: Call, *, is_suspended: bool) -> Answer:
    stored = _trigger(call)
    value = stored.value
    after = await call.gateway.definitions.triggers.change(
        value.slug,
        lambda trigger: replace(trigger, suspended=is_suspended),
        value.namespace,
        by=call.caller.name or call.caller.id,
    )
    return Answer(value=await call.gateway.trigger_desk.triggers.status(after), headers={"ETag": etag_of(after)})


def _trigger(call: Call) -> Stored[Trigger]:
    return _owned(call, call.gateway.definitions.triggers, "trigger")


def _notify(call: Call) -> Stored[Notify]:
    return _owned(call, call.gateway.definitions.notifies, "notify")


def _owned(call: Call, store: ObjectStore[Any], kind: str) -> Stored[Any]:
    """The namespace's own: a tenant's administrator learns nothing of what fires for everybody. Raises
    `ObjectNotFound`, `Problem` 403."""
    check_may_declare(call.caller, kind)
    slug, namespace = call.path["slug"], namespace_for(call.caller, call.query.namespace)
    found = store.get(slug, namespace)
    if found is None:
        raise ObjectNotFound(f"there is no {kind} {slug[:100]!r}")
    return found


def _without_firings(status: TriggerStatus) -> TriggerStatus:
    return replace(status, firings=())


# The operations


def _operation(method: str, path: str, handler: Any, summary: str, **more: Any) -> Operation:
    given: dict[str, Any] = {"scope": Scope.ADMIN, "query": Where, "tag": TAG, "errors": (404,), **more}
    return Operation(method=method, path=path, handler=handler, summary=summary, **given)


def _declared(kind: Kind) -> Iterator[Operation]:
    """They are administrators' alone, also to look at."""
    for operation in operations_of(kind):
        yield replace(operation, scope=Scope.ADMIN)


def _is_of_stored(operation: Operation) -> bool:
    """Teams are stored from files, which are checked; what is stored can be switched and deleted."""
    return operation.method == "DELETE" or operation.path.endswith(("/activate", "/deactivate"))


OPERATIONS: tuple[Operation, ...] = (
    *_declared(Kind("trigger", "triggers", Trigger, TAG, switches=False)),
    *_declared(Kind("notify", "notifies", Notify, TAG)),
    *(each for each in _declared(Kind("team", "teams", StoredTeam, TAG)) if _is_of_stored(each)),
    _operation(
        "POST",
        "/v1/teams/apply",
        apply_file,
        "Store a team file whole",
        query=None,
        body=TeamFile,
        result=Applied,
        errors=(409, 415, 422),
    ),
    _operation(
        "GET", "/v1/trigger-status", statuses, "List triggers as they stand", query=None, result=Statuses, errors=()
    ),
    _operation("GET", "/v1/triggers/{slug}/status", status, "Show a trigger as it stands", result=TriggerStatus),
    _operation("POST", "/v1/triggers/{slug}/suspend", suspend, "Suspend a trigger", result=TriggerStatus),
    _operation("POST", "/v1/triggers/{slug}/resume", resume, "Resume a trigger", result=TriggerStatus),
    _operation(
        "POST",
        "/v1/triggers/{slug}/token",
        make_token,
        "Make a webhook's token anew",
        result=TokenView,
        errors=(404, 422),
    ),
    _operation(
        "POST",
        "/v1/triggers/{slug}/run",
        run_now,
        "Fire a trigger once, now",
        body=RunNow,
        result=Fired,
        status=202,
        also={200: Fired},
        errors=(404, 409, 415, 422),
    ),
    _operation(
        "GET", "/v1/notifies/{slug}/dispatches", dispatches, "Show what became of notifications", result=Dispatches
    ),
    _operation("POST", "/v1/notifies/{slug}/test", test_notify, "Send a test notification", status=202),
)
