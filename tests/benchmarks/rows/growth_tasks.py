"""What a task costs by the rate of tasks: the fewer there are, the more each has a pull and a commit for itself."""

from __future__ import annotations

import json
import sys
import time

from tests.benchmarks.contenders import SHOAL
from tests.benchmarks.figures import written
from tests.benchmarks.meter import Work, between, read
from tests.benchmarks.peers.protocol import TEXT
from tests.benchmarks.plots import Curve, Plot
from tests.benchmarks.programs import Program
from tests.benchmarks.report import Table
from tests.benchmarks.run import Run

LOAD = "tests.benchmarks.drivers.load"
RATES = (20, 100, 1_000, 5_000)
"""Tasks a second of one process."""
WEIGHED_AT = 1_000
"""A process that has had thousands of tasks, and still holds few."""
SLOTS = 100
LEAST_TASKS = 60
"""In the time that is looked at."""
SUBMITS = 100
COSTS = ("worker_us", "server_us", "commands", "bytes_in", "bytes_out")


def measure(run: Run) -> None:
    """Tasks that end at all times, at several rates; and what submitting one costs the server."""
    points = {rate: _at_rate(run, rate) for rate in RATES}
    run.report.curves["tasks"] = sorted(points.values(), key=lambda point: point["per_s"])
    submit = _submitting(run)
    run.report.figures.update({f"submit_{name}": value for name, value in submit.items()})
    rates = [point["per_s"] for point in points.values()]
    run.report.tables.append(
        Table(
            section="growth",
            title="Growth: rate of tasks, one worker process",
            columns=[
                "tasks/s",
                "worker CPU µs/task",
                "server CPU µs/task",
                "server commands/task",
                "bytes to the server/task",
                "bytes from it/task",
            ],
            rows=[
                *((written(point["per_s"]), *(written(point[name]) for name in COSTS)) for point in points.values()),
                ("submitting one", "—", *(written(submit[name]) for name in COSTS[1:])),
            ],
            notes=[
                (
                    "Tasks wait for different times and end at all times; answers of 1 KB, submitted beforehand. What "
                    "the worker does without tasks is not in it. Submitting: one task per call, prompts of 1 KB."
                )
            ],
            plots=[
                Plot(
                    name="growth-tasks",
                    title="The more tasks end, the less each costs: they share pulls and commits",
                    x_label="tasks per second of one process",
                    y_label="CPU µs per task",
                    curves=[
                        Curve(label="worker", x=rates, y=[point["worker_us"] for point in points.values()]),
                        Curve(label="server", x=rates, y=[point["server_us"] for point in points.values()]),
                    ],
                    log_y=True,
                )
            ],
        )
    )


def _at_rate(run: Run, rate: int) -> dict[str, float]:
    run.say(f"growth: {rate:,} tasks/s")
    run.server.empty()
    slots = SLOTS if rate <= 1_000 else 5 * SLOTS
    window_s = max(run.effort.window_s, LEAST_TASKS / rate)
    pause_s = slots / rate
    told = json.dumps({"pause_s": pause_s}).ljust(len(TEXT))
    count = round(rate * (window_s + 4 * pause_s + 3)) + slots
    with Program(
        sys.executable, LOAD, ["fill", "--url", run.server.url, "--count", str(count), "--told", told]
    ) as fill:
        fill.figures(120)
    with SHOAL.program("work", run.server, concurrency=slots, job="doze") as worker:
        worker.line("READY", 60)
        time.sleep(1.0 + 1.6 * pause_s)
        ended, spent, before = SHOAL.finished(run.server.client, 0), worker.cpu_s(), read(run.server.client)
        time.sleep(window_s)
        work, spent = between(before, read(run.server.client)), worker.cpu_s() - spent
        done = SHOAL.finished(run.server.client, 0) - ended
        if rate == WEIGHED_AT:
            run.report.figures["busy_worker_mib"] = worker.resident_kib() / 1024
    idle = run.report.figures
    return {
        "per_s": done / work.seconds,
        "worker_us": (spent * 1e6 - idle.get("idle_worker_cpu_us_per_s", 0.0) * work.seconds) / done,
        "server_us": (work.cpu_us - idle.get("idle_server_us_per_s", 0.0) * work.seconds) / done,
        "commands": (work.commands - idle.get("idle_worker_commands_per_s", 0.0) * work.seconds) / done,
        **_bytes(work, done),
    }


def _submitting(run: Run) -> dict[str, float]:
    run.server.empty()
    before = read(run.server.client)
    with SHOAL.program("trickle", run.server, count=SUBMITS, gap_s=0.01) as producer:
        producer.figures(60)
    work = between(before, read(run.server.client))
    return {"server_us": work.cpu_us / SUBMITS, "commands": work.commands / SUBMITS, **_bytes(work, SUBMITS)}


def _bytes(work: Work, count: int) -> dict[str, float]:
    return {"bytes_in": work.bytes_in / count, "bytes_out": work.bytes_out / count}
