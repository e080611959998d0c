"""The queue engines side by side, through the same interface."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Sequence

from tests.benchmarks.contenders import SHOAL
from tests.benchmarks.engines import ENGINES, NotHere
from tests.benchmarks.figures import median, percentile, written
from tests.benchmarks.programs import DriverFailed, Program
from tests.benchmarks.report import Table
from tests.benchmarks.run import Run

LOAD = "tests.benchmarks.drivers.load"
STAMPS = 60
WARM = 10
ROUNDS = 2
CONCURRENCY = 100
FIGURES = ("submit/s", "drain/s", "start p50 ms", "start p99 ms", "worker CPU µs/task")


def measure(run: Run) -> None:
    """Each engine that can be started, in turn; the others are named."""
    samples: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    missing: dict[str, str] = {}
    for turn, name in run.interleaved(list(ENGINES), min(ROUNDS, run.effort.rounds)):
        run.say(f"engines, round {turn + 1}: {name}")
        try:
            found = _measured(run, name)
        except (NotHere, DriverFailed, RuntimeError, OSError) as error:
            run.say(f"  {name}: {error}")
            missing[name] = " ".join(str(error).split())[:200]
            run.failed.add(name)
            continue
        for figure, value in found.items():
            samples[name][figure].append(value)
    rows = [(name, *(written(median(found[figure])) for figure in FIGURES)) for name, found in samples.items()]
    run.report.tables.append(
        Table(
            section="engines",
            title="Queue engines side by side",
            columns=["", *FIGURES],
            rows=rows,
            notes=[
                (
                    f"{run.effort.tasks:,} no-op tasks of 1 KB, submitted in bulk, drained by one worker process with "
                    f"{CONCURRENCY} at once; {STAMPS} single tasks for the start on an idle worker. Each engine on "
                    "servers of its own, without replicas, none of which waits for a disk; seen through the "
                    "interface that all share."
                ),
                *(f"{name}: not measured here: {why}." for name, why in missing.items()),
            ],
        )
    )


def _measured(run: Run, name: str) -> dict[str, float]:
    with ENGINES[name]() as url:
        drained = _drained(url, run.effort.tasks)
        starts = _starts(url)
    return {**drained, "start p50 ms": percentile(starts, 50), "start p99 ms": percentile(starts, 99)}


def _worker(url: str, job: str) -> Program:
    return Program(
        sys.executable, SHOAL.module, ["work", "--url", url, "--job", job, "--concurrency", str(CONCURRENCY)]
    )


def _drained(url: str, tasks: int) -> dict[str, float]:
    with Program(sys.executable, LOAD, ["drain", "--url", url, "--count", str(tasks)]) as producer:
        submitted_s = float(producer.line("SUBMITTED", 120))
        with _worker(url, "noop") as worker:
            producer.line("FIRST", 60)
            spent = worker.cpu_s()
            done = producer.figures(120)
            spent = worker.cpu_s() - spent
    return {
        "submit/s": tasks / submitted_s,
        "drain/s": done["tasks"] / done["seconds"],
        "worker CPU µs/task": spent * 1e6 / done["tasks"],
    }


def _starts(url: str) -> Sequence[float]:
    with _worker(url, "stamp") as worker:
        worker.line("READY", 60)
        time.sleep(1.0)
        flags = ["trickle", "--url", url, "--count", str(STAMPS + WARM)]
        with Program(sys.executable, SHOAL.module, flags) as producer:
            producer.figures(120)
        starts = [float(line) for line in worker.pending("START")][WARM:]
    if not starts:
        raise DriverFailed("no task has started")
    return starts
