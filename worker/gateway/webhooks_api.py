"""The webhooks that fire triggers: `/v1/triggers/<name>/fire`, and where kubeswarm has them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final, Literal

from msgspec import Struct
from starlette.responses import Response

from worker.gateway.body import read_body
from worker.gateway.decoding import check_content_type, decode_body
from worker.gateway.operation import Answer, Call, Operation
from worker.gateway.problem import Problem
from worker.gateway.sse import sse_response
from worker.gateway.sse_event import SseEvent
from worker.gateway.trigger_waiting import RunResult, events_of, timeout_of, waited_for
from worker.objects import Stored
from worker.teams.triggers.errors import KeyReused
from worker.teams.triggers.firing import Firing, FiringState
from worker.teams.triggers.model import Trigger

MAX_BODY_BYTES: Final = 1024 * 1024
TAG: Final = "Teams and triggers"
_DEFAULT_NAMESPACE: Final = "default"
"""Kubernetes' name for it; here, what is everybody's."""


class FireQuery(Struct, frozen=True, kw_only=True):
    """How a webhook is fired."""

    namespace: str = ""
    mode: Literal["async", "sync", "sse"] = "async"
    """`sync` waits for the run, `sse` streams what it does."""
    timeout: str = ""
    """For `sync` and `sse`, such as `30s` or `2m`; at most five minutes."""
    token: str = ""
    """Instead of the header, for senders that can set none."""


class Fired(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What firing has done."""

    fired: bool
    fired_at: str
    trigger: str
    targets: int
    """Runs that were started."""
    runs: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    """Of targets that could not be run."""
    reason: str = ""
    """Why nothing was started."""
    is_repeated: bool = False
    """It had been fired before with the same idempotency key; nothing was started again."""


async def fire(call: Call) -> Answer | Response:
    """Fire a webhook, by its token."""
    return await _fire(call, call.query.namespace, call.path["slug"])


async def fire_in_namespace(call: Call) -> Answer | Response:
    """The same, where kubeswarm has it."""
    namespace, slug = call.path["namespace"], call.path["slug"]
    is_default = namespace == _DEFAULT_NAMESPACE and call.gateway.definitions.triggers.get(slug, namespace) is None
    return await _fire(call, "" if is_default else namespace, slug)


async def _fire(call: Call, namespace: str, slug: str) -> Answer | Response:
    desk, query = call.gateway.trigger_desk, call.query
    stored, caller = await desk.admitted(call.request, namespace, slug)
    call.request.state.caller = caller
    trigger = stored.value
    if trigger.type != "webhook":
        raise Problem(400, "trigger is not of type webhook", code="no_webhook")
    if trigger.suspended:
        raise Problem(503, "trigger is suspended", code="trigger_suspended")
    timeout_s = timeout_of(query.timeout)
    if query.mode != "async" and len(trigger.targets) != 1:
        raise Problem(400, f"{query.mode} mode requires exactly one target team", code="several_targets")
    body = await _body(call)
    key = call.request.headers.get("idempotency-key", "")
    if query.mode != "async":
        desk.check_room(query.mode)  # before anything is started
    if query.mode == "sync":
        with desk.waiting("sync"):
            firing, _ = await _fired(call, stored, body, key)
            return await waited_for(call.gateway, _run_of(firing), timeout_s)
    firing, is_new = await _fired(call, stored, body, key)
    if query.mode == "sse":
        return sse_response(_events(call, _run_of(firing), timeout_s), heartbeat_s=_heartbeat_s(call))
    if firing.state is FiringState.FAILED:
        raise Problem(422, firing.error, code="trigger_failed")
    is_fired = firing.state is FiringState.FIRED
    return Answer(value=told_of(firing, is_new=is_new), status=202 if is_fired else 200)


async def _fired(call: Call, stored: Stored[Trigger], body: Any, key: str) -> tuple[Firing, bool]:
    try:
        return await call.gateway.trigger_desk.triggers.fire(stored, body=body, key=key)
    except KeyReused as error:
        raise Problem(422, str(error), code="idempotency_key_reused") from error


async def _events(call: Call, run_id: str, timeout_s: float) -> AsyncIterator[SseEvent]:
    with call.gateway.trigger_desk.waiting("sse"):
        async with aclosing(events_of(call.gateway, run_id, timeout_s)) as events:
            async for event in events:
                yield event


def _heartbeat_s(call: Call) -> float:
    return call.gateway.settings.gateway.heartbeat_s


def _run_of(firing: Firing) -> str:
    """The run to wait for. Raises `Problem` if none was started."""
    if firing.state is FiringState.SKIPPED:
        raise Problem(409, firing.reason, code="trigger_skipped")
    if not firing.started:
        raise Problem(422, firing.error or "no run was started", code="trigger_failed")
    return firing.started[0]


async def _body(call: Call) -> Any:
    raw = await read_body(call.request)
    if not raw.strip():
        return None
    check_content_type(call.request.headers.get("content-type", ""))
    return decode_body(raw, Any)


def told_of(firing: Firing, *, is_new: bool) -> Fired:
    """What a firing has done, as its caller is told."""
    return Fired(
        fired=firing.state is FiringState.FIRED,
        fired_at=firing.moment,
        trigger=firing.trigger,
        targets=len(firing.started),
        runs=firing.started,
        errors=tuple(f"{each.target}: {each.error}" for each in firing.dispatches if each.error),
        reason=firing.reason,
        is_repeated=not is_new,
    )


def _webhook(path: str, handler: Any, *, is_hidden: bool = False) -> Operation:
    return Operation(
        method="POST",
        path=path,
        handler=handler,
        summary="Fire a webhook trigger, by its token: the JSON body is `.trigger.body` in templates",
        scope=None,
        tag=TAG,
        query=FireQuery,
        result=Fired,
        status=202,
        also={200: RunResult},
        errors=(401, 409, 415, 422, 504),
        max_body_bytes=MAX_BODY_BYTES,
        is_hidden=is_hidden,
    )


OPERATIONS: tuple[Operation, ...] = (
    _webhook("/v1/triggers/{slug}/fire", fire),
    _webhook("/triggers/{namespace}/{slug}/fire", fire_in_namespace, is_hidden=True),
)
