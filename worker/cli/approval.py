"""`shoal approval`: the same as `shoal approve`, as a group of commands."""

from __future__ import annotations

import click

from worker.cli.approve import answer, list_open
from worker.cli.invocation import Invocation, examples, shoal_options


@click.group(help="Questions that plugins, tools and steps have put to people: list and answer them.")
def approval() -> None:
    """The group; each command has its own options."""


@approval.command("list", help="List the questions that wait for an answer.\n\n" + examples("shoal approval list"))
@shoal_options
def list_approvals(call: Invocation) -> int:
    """One table, or one JSON document a line."""
    return call.wait_for(list_open(call))


@approval.command("approve", help="Say yes.\n\n" + examples('shoal approval approve 1a2b3c4d --comment "go ahead"'))
@click.argument("approval_id", metavar="ID")
@click.option("--comment", default="", help="Goes to whoever asked.")
@shoal_options
def approve(call: Invocation, approval_id: str, comment: str) -> int:
    """Exit code 4 if nobody waits for that."""
    return call.wait_for(answer(call, approval_id, approved=True, comment=comment))


@approval.command("reject", help="Say no.\n\n" + examples('shoal approval reject 1a2b3c4d --comment "not today"'))
@click.argument("approval_id", metavar="ID")
@click.option("--comment", default="", help="Goes to whoever asked.")
@shoal_options
def reject(call: Invocation, approval_id: str, comment: str) -> int:
    """Exit code 4 if nobody waits for that."""
    return call.wait_for(answer(call, approval_id, approved=False, comment=comment))
