"""How cost grows: with workers, waiting tasks, finished tasks, open runs, chunks, subscribers."""

from __future__ import annotations

from collections.abc import Callable

from tests.benchmarks.programs import DriverFailed
from tests.benchmarks.rows import (
    growth_chunks,
    growth_depth,
    growth_runs,
    growth_subscribers,
    growth_tasks,
    growth_workers,
)
from tests.benchmarks.run import Run

CURVES: dict[str, Callable[[Run], None]] = {
    "workers": growth_workers.measure,
    "idle workers": growth_workers.measure_idle,  # before those that leave its cost out of theirs
    "rate of tasks": growth_tasks.measure,
    "waiting tasks": growth_depth.measure_waiting,
    "finished tasks": growth_depth.measure_finished,
    "open runs": growth_runs.measure,
    "chunks": growth_chunks.measure,
    "subscribers": growth_subscribers.measure,
}


def measure(run: Run) -> None:
    """Each curve; one that fails leaves the others standing."""
    for name, curve in CURVES.items():
        run.say(f"growth: {name}")
        try:
            curve(run)
        except (DriverFailed, RuntimeError, ValueError, OSError) as error:
            run.say(f"  growth, {name}: {error}")
            run.report.failures.append(f"growth, {name}: {error}")
    figures = run.report.figures
    for name, value in figures.items():  # the difference of two small costs may come out below nothing
        figures[name] = max(0.0, value)
