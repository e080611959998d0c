"""`shoal workers`: who works on the queue."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.screen import Cell, Column
from worker.cli.wording import count, duration, megabytes, usd

if TYPE_CHECKING:
    from worker.fleet.presence import Presence


@click.command(
    help="List the workers of the queue: what they run and what they used since their start. One that was killed is "
    "listed for 15 seconds more.\n\n" + examples("shoal workers", "shoal workers --json | jq -r .id")
)
@shoal_options
def workers(call: Invocation) -> int:
    """A table, or one JSON document a line."""
    return call.wait_for(_list(call))


async def _list(call: Invocation) -> int:
    from worker.fleet.presence import Workers

    async with call.fleet() as fleet:
        found = await Workers(fleet.backend.state).all()
    if call.screen.as_json:
        for presence in found:
            call.screen.json(presence)
        return OK
    columns = (
        Column("worker"),
        Column("host:pid"),
        Column("running", right=True),
        Column("done", right=True),
        Column("failed", right=True),
        Column("tokens", right=True),
        Column("cost", right=True),
        Column("memory", right=True),
        Column("up", right=True),
        Column("state"),
    )
    call.screen.table(columns, [_row(presence) for presence in found], empty="no worker is up: shoal worker")
    return OK


def _row(worker: Presence) -> tuple[str | Cell, ...]:
    return (
        worker.id,
        f"{worker.host}:{worker.pid}",
        f"{worker.running}/{worker.slots}",
        count(worker.tasks_done),
        Cell(count(worker.tasks_failed) if worker.tasks_failed else "", "bad"),
        count(worker.tokens),
        usd(worker.known_cost_usd),
        megabytes(worker.rss_bytes),
        duration(time.time() - worker.started_at),
        Cell("draining", "warn") if worker.draining else Cell("works", "good"),
    )
