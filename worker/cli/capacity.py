"""`shoal capacity`: what a number of tasks needs, by the costs that were measured for this version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.parameters import DURATION
from worker.cli.screen import Cell
from worker.cli.wording import count, duration

if TYPE_CHECKING:
    from worker.capacity import Load, Measured, Need

_POSITIVE = click.FloatRange(min=0, min_open=True)
_ANY = click.FloatRange(min=0)


@click.command(
    help="Calculate workers, Redis partitions, memory and bandwidth for a number of tasks. Reads no queue.\n\n"
    "The costs were measured; docs/scaling.md has the formulas, and how far they are off.\n\n"
    + examples(
        "shoal capacity --tasks 1000",
        "shoal capacity --tasks 100000 --chunks-per-s 20 --task-time 5m --waiting 50000",
        "shoal capacity --tasks 10000000 --json",
    )
)
@click.option("--tasks", type=_POSITIVE, required=True, help="Tasks that run at once.")
@click.option("--task-time", "task_s", type=DURATION, default="60s", show_default=True, help="How long one runs.")
@click.option("--chunks-per-s", type=_ANY, default=20, show_default=True, help="Pieces of text of one, on average.")
@click.option("--chunk-chars", type=_ANY, default=6, show_default=True, help="Characters of a piece.")
@click.option("--prompt-bytes", type=_ANY, default=4000, show_default=True, help="With history.")
@click.option("--calls", type=click.FloatRange(min=1), default=2, show_default=True, help="Model calls of a task.")
@click.option("--waiting", type=_ANY, default=0, show_default=True, help="Tasks that wait in the queue.")
@click.option("--listeners", type=_ANY, default=1, show_default=True, help="Processes that listen to a task.")
@click.option(
    "--usage-retention",
    "usage_retention_s",
    type=DURATION,
    help="Usage records; 0 if they are on another server. Without it: as configured.",
)
@click.option("--slots", type=_POSITIVE, default=100, show_default=True, help="Tasks at once in a worker process.")
@click.option("--server-gib", type=_POSITIVE, default=24, show_default=True, help="Data that one Redis may hold.")
@shoal_options
def capacity(call: Invocation, slots: float, server_gib: float, usage_retention_s: float | None, **load: Any) -> int:
    """One table, or one JSON document. Lease and retention times are those of the settings."""
    from worker.capacity import Limits, Load, measured, needs

    settings = call.settings()
    kept = settings.backend
    if usage_retention_s is None:
        usage_retention_s = settings.usage_retention_days * 86_400.0
    figures, origin = measured()
    wanted = Load(
        **load,
        lease_s=kept.lease_s,
        result_retention_s=kept.result_retention_s,
        chunk_retention_s=kept.chunk_retention_s,
        usage_retention_s=usage_retention_s,
    )
    need = needs(wanted, figures, Limits(slots=slots, server_gib=server_gib))
    if call.screen.as_json:
        call.screen.json({"load": wanted, "need": need, "measured_at": origin.measured_at})
    else:
        _show(call, wanted, need, origin)
    return OK


def _show(call: Invocation, load: Load, need: Need, origin: Measured) -> None:
    kept = sorted(need.memory_gib.items(), key=lambda part: -part[1])
    rows: list[tuple[str, str | Cell]] = [
        ("load", f"{count(round(load.tasks))} tasks of {duration(load.task_s)}, {count(round(load.waiting))} waiting"),
        ("", f"{_amount(need.tasks_per_s)} tasks end a second, {_amount(need.chunks_per_s)} chunks/s"),
        ("worker processes", Cell(_bound(need.processes, need.processes_because), "bold")),
        ("", f"{_amount(need.slots)} tasks each; {_amount(need.worker_cpu)} cores and {_amount(need.worker_gib)} GiB"),
        ("listeners", f"{_amount(need.subscriber_cpu)} cores"),
        ("Redis partitions", Cell(_bound(need.partitions, need.partitions_because), "bold")),
        ("", f"{_amount(need.server_cpu)} cores, {_amount(need.commands_per_s)} commands/s"),
        ("", f"{_amount(need.mbit_in)} Mbit/s in, {_amount(need.mbit_out)} Mbit/s out"),
        ("", f"{count(round(need.connections))} connections of workers"),
        ("Redis memory", Cell(f"{_amount(need.server_gib)} GiB", "bold")),
        *(("", f"{_amount(size)} GiB {what}") for what, size in kept),
    ]
    call.screen.fields(rows)
    call.screen.note(f"costs measured {origin.measured_at}; plan for twice as much until you have measured your own")


def _bound(number: int, because: str) -> str:
    return count(number) + (f" (bound by {because})" if because else "")


def _amount(value: float) -> str:
    """Three digits: it is an estimate."""
    return count(round(float(f"{value:.3g}"))) if value >= 100 else f"{value:.3g}"
