"""`shoal stats`, `shoal pause`, `shoal resume`: the queue as a whole."""

from __future__ import annotations

import click

from queue_backends import QueueStats
from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.screen import Cell
from worker.cli.wording import count, duration


@click.command(help="Show how many tasks wait, run and failed.\n\n" + examples("shoal stats", "shoal stats --json"))
@shoal_options
def stats(call: Invocation) -> int:
    """One table, or one JSON document."""
    return call.wait_for(_stats(call))


@click.command(
    help="Deliver no more tasks, to any worker, until `shoal resume`. Running tasks go on.\n\n"
    + examples("shoal pause")
)
@shoal_options
def pause(call: Invocation) -> int:
    """Pausing a paused queue changes nothing."""
    return call.wait_for(_set_paused(call, paused=True))


@click.command(help="Deliver tasks again after `shoal pause`.\n\n" + examples("shoal resume"))
@shoal_options
def resume(call: Invocation) -> int:
    """Resuming a queue that is not paused changes nothing."""
    return call.wait_for(_set_paused(call, paused=False))


async def _stats(call: Invocation) -> int:
    async with call.fleet() as fleet:
        found = await fleet.backend.queue.stats()
    if call.screen.as_json:
        call.screen.json(found)
    else:
        call.screen.fields(_figures(found))
    return OK


async def _set_paused(call: Invocation, *, paused: bool) -> int:
    async with call.fleet() as fleet:
        queue = fleet.backend.queue
        await (queue.pause() if paused else queue.resume())
        found = await queue.stats()
    if call.screen.as_json:
        call.screen.json({"paused": found.paused})
    elif paused:
        call.screen.line(f"paused (ready: {count(found.ready)}; running, they go on: {count(found.running)})")
    else:
        call.screen.line(f"resumed (ready: {count(found.ready)}; running: {count(found.running)})")
    return OK


def _figures(found: QueueStats) -> list[tuple[str, str | Cell]]:
    by_priority = "  ".join(f"{priority.value} {count(n)}" for priority, n in found.ready_by_priority.items() if n)
    ready = count(found.ready) + (f"  ({by_priority})" if by_priority and found.ready else "")
    figures: list[tuple[str, str | Cell]] = [
        ("ready", ready),
        ("running", Cell(count(found.running), "tool" if found.running else "")),
        ("delayed", count(found.delayed)),
        ("dead", Cell(count(found.dead), "bad" if found.dead else "")),
    ]
    if found.oldest_ready_age_s is not None:
        figures.append(("oldest", f"has waited {duration(found.oldest_ready_age_s)}"))
    if found.paused:
        figures.append(("paused", Cell("yes: shoal resume", "warn")))
    return figures
