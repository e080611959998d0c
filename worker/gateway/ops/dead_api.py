"""Dead letters: look at them, bring them back, delete them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

from msgspec import Meta, Struct

from queue_backends import DeadLetter, TaskQueue
from worker.gateway.operation import Call, Operation
from worker.gateway.ops.declaring import reading, writing
from worker.gateway.ops.tenancy import refuse_tenants
from worker.gateway.ops.views import LetterDetail, LetterView, letter_detail, letter_view
from worker.gateway.problem import Problem

MOST_SEARCHED = 1000
"""Of the newest letters: one that is older is found by the command line alone."""
_PAGE = 500


class LettersQuery(Struct, frozen=True, kw_only=True):
    """How many, and which."""

    limit: Annotated[int, Meta(ge=1, le=MOST_SEARCHED)] = 100
    text: Annotated[str, Meta(max_length=200, description="Part of the id, error, agent or prompt, in any case")] = ""


class Letters(Struct, frozen=True, kw_only=True):
    """Dead letters, newest first."""

    letters: list[LetterView]
    dead: int
    """How many there are in all; for a caller that is bound to a tenant, among those that were looked at."""


class Chosen(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Letters by id, or all that there are now."""

    ids: Annotated[list[str], Meta(max_length=1000)] = []
    all: bool = False


class Requeued(Struct, frozen=True, kw_only=True):
    """What became of a request to bring letters back."""

    requeued: int
    missing: int
    """So many of the named letters were there no more, or their entry was not kept whole."""


class Purged(Struct, frozen=True, kw_only=True):
    """How many letters were deleted."""

    purged: int


async def _list(call: Call) -> Letters:
    queue, query = call.gateway.backend.queue, call.query
    is_narrowed = bool(call.caller.tenant or query.text)
    found = await queue.dead_letters(limit=MOST_SEARCHED if is_narrowed else query.limit)
    own = _own(call, found)
    views = [letter_view(letter) for letter in own if _fits(letter, query.text.lower())]
    dead = len(own) if call.caller.tenant else (await queue.stats()).dead
    return Letters(letters=views[: query.limit], dead=dead)


async def _show(call: Call) -> LetterDetail:
    wanted = call.path["id"]
    for letter in _own(call, await call.gateway.backend.queue.dead_letters(limit=MOST_SEARCHED)):
        if letter.id == wanted:
            return letter_detail(letter)
    raise Problem(
        404,
        f"there is no dead letter {wanted!r} among the newest {MOST_SEARCHED}: it was requeued or purged, or is older",
        code="letter_not_found",
    )


async def _requeue(call: Call) -> Requeued:
    queue, ids = call.gateway.backend.queue, await _chosen(call, "requeueing all dead letters")
    if ids is None:
        back: list[str] = []
        await for_all(queue, lambda page: _collect(queue, page, back))
        return Requeued(requeued=len(back), missing=0)
    found = await queue.requeue(ids)
    return Requeued(requeued=len(found), missing=len(ids) - len(found))


async def _purge(call: Call) -> Purged:
    queue, ids = call.gateway.backend.queue, await _chosen(call, "purging all dead letters")
    return Purged(purged=await for_all(queue, queue.purge) if ids is None else await queue.purge(ids))


async def _chosen(call: Call, what: str) -> list[str] | None:
    """The ids that are meant; None: all. A tenant's caller has only its own letters, which others' ids do not tell."""
    body: Chosen = call.body
    if bool(body.ids) == body.all:
        raise Problem(422, 'name the letters, {"ids": ["…"]}, or say {"all": true}', code="nothing_chosen")
    if body.all:
        refuse_tenants(call, what)
        return None
    if not call.caller.tenant:
        return list(dict.fromkeys(body.ids))
    letters = _own(call, await call.gateway.backend.queue.dead_letters(limit=MOST_SEARCHED))
    if missing := sorted(set(body.ids) - {letter.id for letter in letters}):
        raise Problem(404, f"there is no dead letter {missing[0]!r}", code="letter_not_found")
    return list(dict.fromkeys(body.ids))


def _own(call: Call, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
    tenant = call.caller.tenant
    return [letter for letter in letters if not tenant or letter.fields.get("tenant", "") == tenant]


def _fits(letter: DeadLetter, text: str) -> bool:
    parts = (letter.id, letter.task_id, letter.error, letter.fields.get("agent", ""), letter.prompt)
    return not text or any(text in part.lower() for part in parts)


async def for_all(queue: TaskQueue, act: Callable[[Sequence[str]], Awaitable[int]]) -> int:
    """Act on as many letters as there are now, page by page: what dies meanwhile could go on for ever."""
    left, total = (await queue.stats()).dead, 0
    stayed: set[str] = set()
    while left > 0:
        letters = await queue.dead_letters(limit=_PAGE + len(stayed))
        stayed &= {letter.id for letter in letters}
        ids = [letter.id for letter in letters if letter.id not in stayed][: min(_PAGE, left)]
        if not ids:
            break
        total += await act(ids)
        left -= len(ids)
        stayed.update(ids)  # one that is not kept whole cannot be brought back: the next ones are behind it
    return total


async def _collect(queue: TaskQueue, ids: Sequence[str], back: list[str]) -> int:
    brought = await queue.requeue(ids)
    back += brought
    return len(brought)


OPERATIONS: tuple[Operation, ...] = (
    reading("/v1/ops/dead", _list, "Dead letters, newest first", query=LettersQuery, result=Letters),
    reading("/v1/ops/dead/{id}", _show, "One dead letter, whole", result=LetterDetail, errors=(404,)),
    writing(
        "/v1/ops/dead/requeue",
        _requeue,
        "Bring dead letters back as fresh tasks with the same ids",
        body=Chosen,
        result=Requeued,
        errors=(404, 422),
    ),
    writing(
        "/v1/ops/dead/purge", _purge, "Delete dead letters for good", body=Chosen, result=Purged, errors=(404, 422)
    ),
)
