"""`shoal approval`: questions of plugins to people."""

from __future__ import annotations

import getpass
import time
from typing import TYPE_CHECKING

import click

from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.screen import Column
from worker.cli.wording import duration

if TYPE_CHECKING:
    from worker.engine.approvals import Approval


@click.group(help="Questions that plugins have put to people: list and answer them.")
def approval() -> None:
    """The group; each command has its own options."""


@approval.command("list", help="List the questions that wait for an answer.\n\n" + examples("shoal approval list"))
@shoal_options
def list_approvals(call: Invocation) -> int:
    """One table, or one JSON document a line."""
    return call.wait_for(_list(call))


@approval.command("approve", help="Say yes.\n\n" + examples('shoal approval approve 1a2b3c4d --comment "go ahead"'))
@click.argument("approval_id", metavar="ID")
@click.option("--comment", default="", help="Goes to the plugin.")
@shoal_options
def approve(call: Invocation, approval_id: str, comment: str) -> int:
    """Exit code 4 if nobody waits for that."""
    return call.wait_for(_decide(call, approval_id, approved=True, comment=comment))


@approval.command("reject", help="Say no.\n\n" + examples('shoal approval reject 1a2b3c4d --comment "not today"'))
@click.argument("approval_id", metavar="ID")
@click.option("--comment", default="", help="Goes to the plugin.")
@shoal_options
def reject(call: Invocation, approval_id: str, comment: str) -> int:
    """Exit code 4 if nobody waits for that."""
    return call.wait_for(_decide(call, approval_id, approved=False, comment=comment))


async def _list(call: Invocation) -> int:
    from worker.engine.approvals import Approvals

    async with call.fleet() as fleet:
        pending = await Approvals(fleet.backend.state).pending()
    if call.screen.as_json:
        for each in pending:
            call.screen.json(each)
        return OK
    columns = (Column("id"), Column("permission"), Column("time left"), Column("question", wide=True))
    call.screen.table(columns, [_row(each) for each in pending], empty="no question is waiting")
    return OK


def _row(each: Approval) -> tuple[str, ...]:
    return each.id, each.permission, duration(max(0.0, each.until - time.time())), each.description


async def _decide(call: Invocation, approval_id: str, *, approved: bool, comment: str) -> int:
    from worker.engine.approvals import Approvals

    async with call.fleet() as fleet:
        answer = await Approvals(fleet.backend.state).decide(
            approval_id, approved=approved, reviewer=getpass.getuser(), comment=comment
        )
    if call.screen.as_json:
        call.screen.json(answer)
    else:
        call.screen.line(f"{'approved' if approved else 'rejected'}: {answer.description}")
    return OK
