"""`shoal tasks output`: what a tool answered, in full, where the model was shown only the beginning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from queue_backends import TaskNotFound
from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.screen import Column, clean
from worker.cli.wording import count

if TYPE_CHECKING:
    from worker.client import Fleet
    from worker.tools.outputs import TaskOutputs


@click.command(
    "output",
    help="Print a long tool output of a task; without CALL_ID, list those that are stored.\n\n"
    + examples("shoal tasks output 1775324895139-0", "shoal tasks output 1775324895139-0 call_0_0 > report.txt"),
)
@click.argument("task_id", metavar="ID")
@click.argument("call_id", metavar="[CALL_ID]", required=False)
@shoal_options
def output(call: Invocation, task_id: str, call_id: str | None) -> int:
    """Exit code 4 if there is no such output."""
    return call.wait_for(_print(call, task_id, call_id) if call_id else _list(call, task_id))


async def _list(call: Invocation, task_id: str) -> int:
    async with call.fleet() as fleet:
        kept = await _kept(fleet, task_id).kept()
    if call.screen.as_json:
        for call_id, chars in kept.items():
            call.screen.json({"call_id": call_id, "chars": chars})
        return OK
    rows = [(call_id, count(chars)) for call_id, chars in sorted(kept.items())]
    call.screen.table((Column("call"), Column("characters", right=True)), rows, empty="no stored outputs")
    return OK


async def _print(call: Invocation, task_id: str, call_id: str) -> int:
    is_empty = True
    call_id = call_id.removeprefix("output:")
    async with call.fleet() as fleet:
        async for text in _kept(fleet, task_id).whole(call_id):
            is_empty = False
            if call.screen.as_json:
                call.screen.json({"call_id": call_id, "text": text})
            else:
                call.screen.write(clean(text) if call.screen.fancy else text)
    if is_empty:
        raise TaskNotFound(
            f"task {task_id} has no stored output {call_id!r}: shoal tasks output {task_id} lists those it has"
        )
    return OK


def _kept(fleet: Fleet, task_id: str) -> TaskOutputs:
    from worker.tools.outputs import OutputStore  # for reading alone: neither bound matters

    return OutputStore(fleet.backend.state, keep_s=1.0, max_chars=0).of(task_id)
