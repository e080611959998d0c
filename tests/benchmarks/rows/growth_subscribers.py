"""What listeners cost: many to one task, one each to many tasks, and many with connections of their own."""

from __future__ import annotations

import json
import sys
from typing import NamedTuple

from tests.benchmarks.contenders import SHOAL
from tests.benchmarks.figures import written
from tests.benchmarks.meter import between, read
from tests.benchmarks.plots import Curve, Plot
from tests.benchmarks.programs import Program
from tests.benchmarks.report import Table
from tests.benchmarks.run import Run

LOAD = "tests.benchmarks.drivers.load"
CHARS = 60
PER_S = 5
MOST_OWN = 100
"""Subscribers with connections of their own, each of which stands for a process."""


class Point(NamedTuple):
    """A steady stream and those who hear it."""

    heard_per_s: float
    p50_ms: float
    p99_ms: float
    subscriber_us: float
    worker_us: float
    server_us: float
    bytes_out: float


def measure(run: Run) -> None:
    """Each kind of audience."""
    counts = run.effort.subscribers
    one = {count: _followed(run, tasks=1, each=count) for count in counts}
    own = {count: _followed(run, tasks=1, each=count, own=True) for count in counts if count <= MOST_OWN}
    many = {count: _followed(run, tasks=count, each=1) for count in counts}
    figures = run.report.figures
    last, last_own = many[counts[-1]], own[max(own)]
    figures["heard_subscriber_us"] = last.subscriber_us
    figures["heard_bytes_out"] = last_own.bytes_out / max(own) - CHARS
    figures["heard_server_us"] = (last_own.server_us - own[counts[0]].server_us) / max(1, max(own) - counts[0])
    kinds = {
        "one task, {} listeners of one process": one,
        "one task, {} listeners with connections of their own": own,
        "{} tasks, a listener each": many,
    }
    rows = [
        (kind.format(f"{count:,}"), *map(written, point))
        for kind, found in kinds.items()
        for count, point in found.items()
    ]
    run.report.tables.append(
        Table(
            section="growth",
            title=f"Growth: subscribers of streams with {PER_S} chunks a second",
            columns=[
                "",
                "chunks heard/s",
                "delay p50 ms",
                "p99 ms",
                "subscriber CPU µs per chunk heard",
                "worker CPU µs per chunk written",
                "server CPU µs per chunk written",
                "bytes from the server per chunk written",
            ],
            rows=rows,
            notes=[
                (
                    "Listeners of one process share one subscription for each task: the server sends a chunk once to a "
                    "process, however many listen there. Delay: from the provider's piece to the listener's loop, all "
                    "on the same cores. With one stream alone, what the processes do anyway counts as its cost."
                )
            ],
            plots=[
                Plot(
                    name="growth-subscribers",
                    title="The server sends a chunk once to each process, however many listen there",
                    x_label="listeners of one task",
                    y_label="bytes from the server per chunk",
                    curves=[
                        Curve(label="in one process", x=list(one), y=[point.bytes_out for point in one.values()]),
                        Curve(label="each in its own", x=list(own), y=[point.bytes_out for point in own.values()]),
                    ],
                    log_y=True,
                )
            ],
        )
    )


def _followed(run: Run, *, tasks: int, each: int, own: bool = False) -> Point:
    run.say(f"growth: {tasks:,} tasks with {each:,} subscribers each{', connections of their own' if own else ''}")
    run.server.empty()
    told = json.dumps({"pieces": 1_000_000, "every_s": 1 / PER_S, "chars": CHARS})
    flags = ["follow", "--url", run.server.url, "--count", str(tasks), "--each", str(each), "--told", told]
    flags += ["--backends", str(int(own)), "--window-s", str(run.effort.window_s)]
    with SHOAL.program("work", run.server, concurrency=tasks, job="steady") as worker:
        worker.line("READY", 60)
        with Program(sys.executable, LOAD, flags) as audience:
            audience.line("READY", 90)
            spent, before = worker.cpu_s(), read(run.server.client)
            heard = audience.figures(60)
            work, spent = between(before, read(run.server.client)), worker.cpu_s() - spent
    if not heard["pieces"]:
        raise RuntimeError("nobody heard anything")
    written_chunks = tasks * PER_S * work.seconds
    return Point(
        heard_per_s=heard["pieces"] / work.seconds,
        p50_ms=heard["p50_ms"],
        p99_ms=heard["p99_ms"],
        subscriber_us=heard["cpu_s"] * 1e6 / heard["pieces"],
        worker_us=spent * 1e6 / written_chunks,
        server_us=work.cpu_us / written_chunks,
        bytes_out=work.bytes_out / written_chunks,
    )
