"""`shoal tail`: watch a task's stream."""

from __future__ import annotations

import click

from queue_backends import TaskNotFound, TaskState
from worker.cli.failures import FAILED, OK
from worker.cli.follow import follow
from worker.cli.invocation import Invocation, examples, shoal_options


@click.command(
    help="Watch a task's stream: what was said so far, then live.\n\n"
    + examples(
        "shoal tail 1775324895139-0", "shoal tail 1775324895139-0 --after 41", "shoal tail ID --json | jq .content"
    )
)
@click.argument("task_id", metavar="ID")
@click.option("--after", "after_seq", type=click.IntRange(min=-1), default=-1, help="Only chunks after this seq.")
@shoal_options
def tail(call: Invocation, task_id: str, after_seq: int) -> int:
    """Exit code 0 if the task succeeded, 1 if it failed, 4 if there is none."""
    return call.wait_for(_tail(call, task_id, after_seq))


async def _tail(call: Invocation, task_id: str, after_seq: int) -> int:
    async with call.fleet() as fleet:
        handle = fleet.task(task_id)
        if (await handle.status()).state is TaskState.UNKNOWN:
            raise TaskNotFound(f"no task {task_id}: it was never submitted here, or ended too long ago")
        result = await follow(fleet, handle, call.screen, after_seq=after_seq)
    return OK if result.ok else FAILED
