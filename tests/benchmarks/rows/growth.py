"""Whether a long queue, or much that has ended, slows a worker down."""

from __future__ import annotations

from collections import defaultdict

from tests.benchmarks.contenders import SHOAL
from tests.benchmarks.figures import median, written
from tests.benchmarks.report import Table
from tests.benchmarks.rows.watching import drain
from tests.benchmarks.run import Run
from tests.benchmarks.targets import at_least

FLAT = 0.8
"""Slowest over fastest rate that still counts as flat: rounds of one figure differ by as much."""


def measure(run: Run) -> None:
    """Drain rates with so many tasks behind those measured, and with so many ended before them."""
    first: dict[str, list[float]] = defaultdict(list)
    last: dict[str, list[float]] = defaultdict(list)
    depths = {f"{depth:,}": depth for depth in run.effort.depths}
    for turn, name in run.interleaved(list(depths), min(3, run.effort.rounds)):
        run.say(f"growth, round {turn + 1}: {name} tasks waiting")
        if found := run.attempt("growth", f"{name} waiting", _rates, run, depths[name]):
            first[name].append(found[0])
            last[name] += found[1:]
    rows = [(n, written(median(first[n])), written(median(last[n])) if last[n] else "—") for n in first]
    rates = [median(samples) for samples in (*first.values(), *last.values()) if samples]
    run.report.tables.append(
        Table(
            section="growth",
            title=f"Growth: drain/s of {run.effort.tasks:,} tasks in a longer queue",
            columns=["tasks waiting behind", "drain/s of the first", "drain/s of the last"],
            rows=rows,
            notes=[
                (
                    "The first have that many tasks waiting behind them, the last have that many results before them "
                    "(—: they are the same tasks)."
                )
            ],
        )
    )
    if rates:
        text = f"growth: slowest over fastest rate, {run.effort.depths[0]:,} to {run.effort.depths[-1]:,} tasks"
        run.report.verdicts.append(at_least("growth", text, min(rates) / max(rates), FLAT, "(flat)"))


def _rates(run: Run, depth: int) -> tuple[float, ...]:
    measured = run.effort.tasks
    total = measured + depth
    run.server.empty()
    with SHOAL.program("enqueue", run.server, job="noop", count=total) as producer:
        producer.figures(600)
    with SHOAL.program("work", run.server, concurrency=100, job="noop") as worker:
        worker.line("READY", 60)
        first = drain(SHOAL, run.server, worker, total=total, until=measured)
        if depth < measured:
            return (first.per_s,)
        last = drain(SHOAL, run.server, worker, total=total, start=max(1, depth), until=total)
    return first.per_s, last.per_s
