"""Questions that runs put to people: `/v1/approvals`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from worker.approvals import Approval
from worker.errors import ApprovalDecided, ApprovalNotFound
from worker.gateway.caller import Caller, Scope
from worker.gateway.operation import Call, Operation

MOST_COMMENT_CHARS = 2000
_TAG = "Approvals"


class ApprovalsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which ones to list."""

    state: Literal["open", "decided", "all"] = "open"
    """`open`: those that wait, the oldest first. `decided`: answered ones, and those whose time is up, the latest
    first. `all`: both, in this order."""
    run: Annotated[str, Meta(max_length=200)] = ""
    """Only those of this run."""
    task: Annotated[str, Meta(max_length=200)] = ""
    """Only those of this task."""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class ApprovalPage(Struct, frozen=True, kw_only=True):
    """Some questions."""

    approvals: list[Approval]
    open: int
    """How many wait in all."""


class Decision(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person's answer."""

    approved: bool
    comment: Annotated[str, Meta(max_length=MOST_COMMENT_CHARS)] = ""
    """For whoever asked: the model, the plugin, the run's record."""


async def _list(call: Call) -> ApprovalPage:
    desk, query, tenant = call.gateway.approvals, call.query, call.caller.tenant
    if call.caller.app:
        return ApprovalPage(approvals=[], open=0)
    await desk.look()
    waiting = desk.open(tenant)
    found = {
        "open": lambda: waiting,
        "decided": lambda: desk.decided(tenant),
        "all": lambda: [*waiting, *desk.decided(tenant)],
    }[query.state]()
    chosen = [each for each in found if query.run in ("", each.run) and query.task in ("", each.task)]
    return ApprovalPage(approvals=chosen[: query.limit], open=len(waiting))


async def _get(call: Call) -> Approval:
    return _visible(call.caller, await call.gateway.approvals.store.get(call.path["id"]))


async def _decide(call: Call) -> Approval:
    """Answering again as before, as after a lost reply, is no conflict."""
    desk, answer, approval_id = call.gateway.approvals, call.body, call.path["id"]
    reviewer = call.caller.name or call.caller.id
    _visible(call.caller, await desk.store.get(approval_id))
    try:
        return await desk.decide(approval_id, approved=answer.approved, reviewer=reviewer, comment=answer.comment)
    except ApprovalDecided:
        found = await desk.store.get(approval_id)
        given = (found.approved, found.reviewer, found.comment)
        if found.timed_out or found.withdrawn or given != (answer.approved, reviewer, answer.comment):
            raise
        return found


def _visible(caller: Caller, found: Approval) -> Approval:
    """Raises `ApprovalNotFound` for one that is not the caller's to see."""
    if caller.app or (caller.tenant and caller.tenant != found.tenant):
        raise ApprovalNotFound(f"there is no approval {found.id!r}: `GET /v1/approvals` lists those that wait")
    return found


def _operation(method: str, path: str, handler: Any, summary: str, **more: Any) -> Operation:
    scope = Scope.TASKS_READ if method == "GET" else Scope.APPROVALS_WRITE
    return Operation(method=method, path=f"/v1{path}", handler=handler, summary=summary, scope=scope, tag=_TAG, **more)


OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "GET", "/approvals", _list, "Questions that runs put to people", query=ApprovalsQuery, result=ApprovalPage
    ),
    _operation("GET", "/approvals/{id}", _get, "A question, and its answer", result=Approval, errors=(404,)),
    _operation(
        "POST",
        "/approvals/{id}",
        _decide,
        "Answer a question: approve or reject",
        body=Decision,
        result=Approval,
        errors=(404, 409),
    ),
)
