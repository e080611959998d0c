"""What was spent, in any period and grouping."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import asdict

from queue_backends.messages import LAST_MOMENT, JsonObject
from worker.gateway.operation import Call, Operation
from worker.gateway.ops.declaring import reading
from worker.gateway.ops.usage_book import UsageBook, UsageFilter, plain
from worker.gateway.problem import Problem
from worker.ledger.grouping import Group

READ_LIMIT_S = 3.0
"""So long a request reads on in the ledger; what is left is for the next one."""
MOST_GROUPS = 5000
DEFAULT_SPAN_S = 7 * 86_400.0

_SINCE = "Unix seconds; default: seven days ago"
_UNTIL = "Unix seconds; default: now"

Field = Literal["hour", "day", "month", "agent", "model", "tenant"]


class UsageQuery(Struct, frozen=True, kw_only=True):
    """Which usage, and how it is added up."""

    by: Annotated[list[Field], Meta(max_length=3, description="Group by these, comma-separated")] = field(
        default_factory=lambda: ["day"]
    )
    since: Annotated[Annotated[float, Meta(ge=0, le=LAST_MOMENT)] | None, Meta(description=_SINCE)] = None
    until: Annotated[Annotated[float, Meta(ge=0, le=LAST_MOMENT)] | None, Meta(description=_UNTIL)] = None
    agent: Annotated[str, Meta(max_length=200)] = ""
    model: Annotated[str, Meta(max_length=400, description="`provider/model`")] = ""
    tenant: Annotated[str, Meta(max_length=200)] = ""


class Usage(Struct, frozen=True, kw_only=True):
    """Groups of usage and their sum. Times are UTC; periods are whole hours."""

    by: Sequence[str]
    since: float
    until: float
    groups: list[JsonObject]
    """Times in their order, the rest by cost and calls, most first."""
    total: JsonObject
    is_complete: bool
    """False while a large ledger is read for the first time: ask again for the rest."""
    records: int
    """So many records were read."""


async def _usage(call: Call) -> Usage:
    query: UsageQuery = call.query
    until = time.time() if query.until is None else query.until
    since = max(until - DEFAULT_SPAN_S, 0.0) if query.since is None else query.since
    if since > until:
        raise Problem(422, f"since ({since:.0f}) is after until ({until:.0f}): swap them", code="bad_period")
    only = UsageFilter(
        since=since,
        until=until,
        agent=query.agent or None,
        model=query.model or None,
        tenant=_tenant(call, query.tenant),
    )
    book, by = call.gateway.ops.usage, list(dict.fromkeys(query.by))
    is_complete = await book.catch_up(limit_s=READ_LIMIT_S)
    groups = await book.groups(by, only)
    if len(groups) > MOST_GROUPS:
        raise Problem(
            422,
            f"that makes {len(groups)} groups, at most {MOST_GROUPS} are told of: choose a shorter period, or fewer "
            "fields",
            code="too_many_groups",
        )
    total = {name: value for name, value in asdict(await _total(book, only)).items() if name != "key"}
    return Usage(
        by=by,
        since=since,
        until=until,
        groups=plain(groups, by),
        total=total,
        is_complete=is_complete,
        records=0 if call.caller.tenant else book.records,
    )


async def _total(book: UsageBook, only: UsageFilter) -> Group:
    return next(iter(await book.groups((), only)), Group(key=()))


def _tenant(call: Call, wanted: str) -> str | None:
    """Whose usage: a bound caller sees its own alone."""
    own = call.caller.tenant
    if own and wanted not in ("", own):
        raise Problem(403, f"this caller is bound to {own!r} and sees no usage of {wanted!r}", code="tenant_bound")
    return own or wanted or None


OPERATIONS: tuple[Operation, ...] = (
    reading(
        "/v1/ops/usage",
        _usage,
        "Tokens and cost by time, agent, model and tenant",
        query=UsageQuery,
        result=Usage,
        errors=(422,),
    ),
)
