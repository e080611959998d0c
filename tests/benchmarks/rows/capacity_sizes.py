"""What the capacity model says of sizes that no machine here could carry."""

from __future__ import annotations

from msgspec.structs import replace

from tests.benchmarks.figures import written
from tests.benchmarks.plots import Curve, Plot
from tests.benchmarks.report import Table
from tests.benchmarks.run import Run
from worker.capacity import Figures, Load, Need, needs

SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
KEPT: dict[str, dict[str, float]] = {
    "kept by default": {},
    "kept short": {"result_retention_s": 3600.0, "chunk_retention_s": 300.0, "usage_retention_s": 0.0},
}


def tabulate(run: Run, figures: Figures) -> None:
    """With everything kept as by default, and with little kept."""
    found = {kept: {size: needs(_load(size, kept), figures) for size in SIZES} for kept in KEPT}
    rows = [(f"{size:,}, {kept}", *_cells(need)) for kept, needed in found.items() for size, need in needed.items()]
    load, by_default = Load(tasks=1), found[next(iter(KEPT))]
    last = by_default[SIZES[-1]]
    run.report.tables.append(
        Table(
            section="capacity",
            title="Capacity: what a number of concurrent tasks needs",
            columns=[
                "tasks at once",
                "worker processes",
                "their cores",
                "their GiB",
                "Redis partitions",
                "their cores",
                "their GiB",
                "of it usage records",
                "commands/s",
                "Mbit/s in",
                "Mbit/s out",
                "connections",
            ],
            rows=rows,
            notes=[
                (
                    f"By `shoal capacity --tasks N --waiting N/2`: tasks of {load.task_s:g} s with {load.calls:g} "
                    f"model calls, {load.chunks_per_s:g} chunks/s of {load.chunk_chars:g} characters, prompts of "
                    f"{load.prompt_bytes:g} bytes, one listener each. Calculated, not measured: no machine here is so "
                    f"large. Bound by {last.processes_because} (workers) and {last.partitions_because} (partitions)."
                ),
                (
                    "*Kept by default*: results and journals a day, replay streams an hour, usage records 90 days. "
                    "*Kept short*: results and journals an hour, replay streams five minutes, usage records elsewhere."
                ),
            ],
            plots=[
                Plot(
                    name="capacity",
                    title="Partitions: what is kept decides, more than what runs",
                    x_label="tasks at once",
                    y_label="how many are needed",
                    curves=[
                        Curve(label="worker processes", x=SIZES, y=[need.processes for need in by_default.values()]),
                        *(
                            Curve(
                                label=f"Redis partitions, {kept}",
                                x=SIZES,
                                y=[need.partitions for need in needed.values()],
                            )
                            for kept, needed in found.items()
                        ),
                    ],
                    log_y=True,
                )
            ],
        )
    )


def _load(size: int, kept: str) -> Load:
    return replace(Load(tasks=size, waiting=size / 2), **KEPT[kept])


def _cells(need: Need) -> tuple[str, ...]:
    return (
        f"{need.processes:,}",
        *map(written, (need.worker_cpu, need.worker_gib)),
        f"{need.partitions:,}",
        *map(written, (need.server_cpu, need.server_gib, need.memory_gib["usage records"], need.commands_per_s)),
        *map(written, (need.mbit_in, need.mbit_out, need.connections)),
    )
