"""`shoal approve`: questions that runs put to people. Lists them, and answers them."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from worker.cli.declared_kind import user
from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.screen import Cell, Column
from worker.cli.wording import ago, duration, moment, shorten

if TYPE_CHECKING:
    from worker.approvals import Approval

_LONGEST_SHOWN_CHARS = 4000
_COLUMNS = (
    Column("id"),
    Column("age"),
    Column("time left"),
    Column("else"),
    Column("who", style="dim"),
    Column("question"),
    Column("arguments", wide=True),
)


@click.command(
    help="Answer questions that runs put to people: calls of tools, steps of teams, plugins.\n\n"
    "Without an ID: list what waits and, on a terminal, go through it one by one.\n\n"
    + examples(
        "shoal approve",
        "shoal approve 5b1c9e0f3a7d2468",
        'shoal approve 5b1c9e0f3a7d2468 --reject --comment "not on a Friday"',
        "shoal approve --json",
    )
)
@click.argument("approval_id", metavar="[ID]", default="")
@click.option("--reject", is_flag=True, help="Say no instead of yes.")
@click.option("--comment", default="", help="For whoever asked: the model, the plugin, the run's record.")
@shoal_options
def approve(call: Invocation, approval_id: str, reject: bool, comment: str) -> int:
    """Exit code 4 if nobody waits for that answer (any more)."""
    if approval_id:
        return call.wait_for(answer(call, approval_id, approved=not reject, comment=comment))
    if reject or comment:
        raise click.UsageError("--reject and --comment need an ID: `shoal approve` lists those that wait")
    if not _is_interactive(call):
        return call.wait_for(list_open(call))
    pending: list[Approval] = []
    code = call.wait_for(list_open(call, pending))
    return code or _go_through(call, pending)


def _is_interactive(call: Invocation) -> bool:
    return call.screen.is_live and sys.stdin.isatty()


async def list_open(call: Invocation, found: list[Approval] | None = None) -> int:
    """One table, or one JSON document a line; what is shown is added to `found`."""
    from worker.approvals import Approvals
    from worker.approvals.tidying import take_back_ended

    async with call.fleet() as fleet:
        approvals = Approvals(fleet.backend.state, wake=fleet.backend.queue.wake)
        pending = await take_back_ended(fleet.backend, approvals, await approvals.pending())
        if call.screen.as_json:
            for each in pending:
                call.screen.json(each)
            return OK
        call.screen.table(_COLUMNS, [_row(each) for each in pending], empty="no question is waiting")
    if found is not None:
        found += pending
    return OK


async def answer(call: Invocation, approval_id: str, *, approved: bool, comment: str) -> int:
    """Answer one. Raises `ApprovalNotFound`, `ApprovalDecided`."""
    from worker.approvals import Approvals
    from worker.approvals.tidying import take_back_ended

    async with call.fleet() as fleet:
        approvals = Approvals(fleet.backend.state, wake=fleet.backend.queue.wake)
        asked = await approvals.get(approval_id)
        if not asked.decided:
            await take_back_ended(fleet.backend, approvals, [asked])
        given = await approvals.decide(approval_id, approved=approved, reviewer=user(), comment=comment)
    if call.screen.as_json:
        call.screen.json(given)
    else:
        call.screen.line(f"{'approved' if approved else 'rejected'}: {shown(given.message)}")
    return OK


def _row(each: Approval) -> Sequence[str | Cell]:
    return (
        each.id,
        ago(each.asked_at),
        duration(max(0.0, each.until - time.time())),
        {"reject": "rejected", "approve": "approved", "skip": "skipped"}[each.fallback],
        _who(each),
        shorten(shown(each.message), 120),
        shorten(shown(_arguments(each)), 120),
    )


def shown(text: str) -> str:
    """What is asked about, so that it says what it is: characters that are not seen, such as those that turn around the
    order of others, are written as codes."""
    return "".join(each if each in "\n\t" or each.isprintable() else _code(each) for each in text)


def _code(character: str) -> str:
    """A space of another kind is a space."""
    return " " if unicodedata.category(character) == "Zs" else character.encode("unicode_escape").decode()


def _cut(text: str, each: Approval) -> str:
    """Whoever answers knows if that is not all."""
    if len(text) <= _LONGEST_SHOWN_CHARS:
        return text
    more = len(text) - _LONGEST_SHOWN_CHARS
    return f"{text[:_LONGEST_SHOWN_CHARS]}… ({more} more characters: shoal approve --json, id {each.id})"


def _who(each: Approval) -> str:
    if each.run:
        return f"run {each.run}, {each.step}"
    return each.agent or (f"task {each.task}" if each.task else each.permission)


def _arguments(each: Approval) -> str:
    if each.arguments is None:
        return each.context
    import msgspec

    return msgspec.json.encode(each.arguments).decode()


def _go_through(call: Invocation, pending: Sequence[Approval]) -> int:
    """Show each whole, and have it answered, or left. Outside of any event loop, so that Ctrl-C ends the reading."""
    from worker.errors import ApprovalDecided, ApprovalNotFound

    for number, each in enumerate(pending, start=1):
        call.screen.line()
        call.screen.fields(_facts(each))
        call.screen.prompt(f"{number} of {len(pending)}: approve? [y]es, [n]o, [l]ater, [q]uit: ")
        said = sys.stdin.readline()
        if not said or said.strip().lower() in ("q", "quit"):
            return OK
        if (word := said.strip().lower()) in ("y", "yes", "n", "no"):
            try:
                call.wait_for(answer(call, each.id, approved=word.startswith("y"), comment=""))
            except (ApprovalDecided, ApprovalNotFound) as error:
                call.screen.note(str(error), "warn")
    return OK


def _facts(each: Approval) -> list[tuple[str, str | Cell]]:
    import msgspec

    text = "" if each.arguments is None else msgspec.json.format(msgspec.json.encode(each.arguments), indent=2).decode()
    found: list[tuple[str, str | Cell]] = [
        ("question", Cell(shown(each.message), "bold")),
        ("tool", each.tool),
        ("arguments", _cut(shown(text), each)),
        ("context", _cut(shown(each.context), each)),
        ("permission", each.permission),
        ("team", each.team),
        ("run", each.run),
        ("step", each.step),
        ("task", each.task),
        ("agent", each.agent),
        ("tenant", each.tenant),
        ("asked", f"{moment(each.asked_at)} ({ago(each.asked_at)})"),
        ("time left", f"{duration(max(0.0, each.until - time.time()))}, then: {each.fallback}"),
        ("id", each.id),
    ]
    return [(name, value) for name, value in found if (value.text if isinstance(value, Cell) else value)]
