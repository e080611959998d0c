"""Throughput against the number of worker processes, and what they cost while there is nothing to do."""

from __future__ import annotations

import os
import re
import time
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from tests.benchmarks.contenders import SHOAL
from tests.benchmarks.figures import median, written
from tests.benchmarks.meter import between, read
from tests.benchmarks.plots import Curve, Plot
from tests.benchmarks.programs import Program
from tests.benchmarks.report import Table
from tests.benchmarks.rows.watching import Crew, metered_drain
from tests.benchmarks.run import Run
from tests.benchmarks.servers import free_port

CONCURRENCY = 100
NAP_S = 0.5
NAP_ROUNDS = 6
"""So many times each process fills its slots."""
ROUNDS = 1
PULLED = re.compile(r"^shoal_worker_pulled_total (\d+)", re.MULTILINE)
IDLE_S = 6.0


class Point(NamedTuple):
    """What so many workers did."""

    per_s: float
    worker_us: float
    server_us: float
    commands: float
    scripts: float
    fairness: float
    """Tasks of the process that got least, as a share of what all got on average."""


def measure(run: Run) -> None:
    """Tasks that do nothing, which use up the cores; and tasks that wait, as those for a model do."""
    busy: dict[int, list[Point]] = defaultdict(list)
    waiting: dict[int, list[Point]] = defaultdict(list)
    for _ in range(min(ROUNDS, run.effort.rounds)):
        for count in run.effort.workers:
            run.say(f"growth: {count} workers")
            busy[count].append(_drained(run, count, "noop", run.effort.drained))
    for count in run.effort.workers:
        waiting[count].append(_drained(run, count, "nap", NAP_ROUNDS * CONCURRENCY * count))
    _tables(run, busy, waiting)


def _drained(run: Run, count: int, job: str, tasks: int) -> Point:
    server = run.server
    server.empty()
    with SHOAL.program("enqueue", server, job=job, nap_s=NAP_S, count=tasks) as producer:
        producer.figures(120)
    server.client.set("agent-tasks:paused", "1")
    ports = [free_port() for _ in range(count)]
    with ExitStack() as stack:
        options = {"concurrency": CONCURRENCY, "job": job, "nap_s": NAP_S}
        workers = [stack.enter_context(SHOAL.program("work", server, health_port=port, **options)) for port in ports]
        _await_all(workers, ports)
        began = time.monotonic()
        server.client.delete("agent-tasks:paused")
        server.client.publish("agent-tasks:control", "resume")
        seen, work = metered_drain(SHOAL, server, Crew(workers), total=tasks, until=tasks)
        pulled = [_pulled(port) for port in ports]
    done = seen.last.finished - seen.first.finished
    return Point(
        # Those that wait come in waves, of which the first results are the first: they count from the beginning.
        per_s=seen.per_s if job == "noop" else tasks / (seen.last.at_s - began),
        worker_us=seen.cpu_us,
        server_us=work.cpu_us / done,
        commands=work.commands / done,
        scripts=work.scripts / done,
        fairness=min(pulled) * count / sum(pulled),
    )


def _await_all(workers: Sequence[Program], ports: Sequence[int]) -> None:
    """Until each worker serves its pages, which it does just before it begins to pull."""
    deadline = time.monotonic() + 60
    for worker, port in zip(workers, ports, strict=True):
        worker.line("READY", 60)
        while time.monotonic() < deadline:
            try:
                _page(port)
                break
            except OSError:
                time.sleep(0.05)
        else:
            raise RuntimeError(f"a worker does not serve its metrics on port {port}")
    time.sleep(1.0)


def _page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def _pulled(port: int) -> int:
    found = PULLED.search(_page(port))
    return int(found[1]) if found else 0


def _tables(run: Run, busy: dict[int, list[Point]], waiting: dict[int, list[Point]]) -> None:
    def cell(points: list[Point], figure: str) -> str:
        return written(median([getattr(point, figure) for point in points]))

    figures = ("per_s", "worker_us", "server_us", "commands", "scripts", "fairness")
    rows = [
        (f"{count:,}", cell(waiting[count], "per_s"), *(cell(busy[count], figure) for figure in figures))
        for count in busy
    ]
    counts = list(busy)
    nap_rates = [waiting[count][0].per_s for count in counts]
    one = nap_rates[0] / counts[0]
    times = nap_rates[-1] / one
    cores = os.cpu_count() or 1
    run.report.tables.append(
        Table(
            section="growth",
            title="Growth: worker processes",
            columns=[
                "processes",
                f"tasks/s that wait {NAP_S:g} s",
                "no-op tasks/s",
                "worker CPU µs/task",
                "server CPU µs/task",
                "server commands/task",
                "script calls/task",
                "share of the least busy process",
            ],
            rows=rows,
            notes=[
                (
                    f"{CONCURRENCY} tasks at once in each process. Tasks that wait are the usual ones: theirs grow "
                    f"with the processes ({counts[-1]} do {written(times)} times what one does). No-op tasks use up "
                    f"cores, and this machine has {cores} for all workers, the server and the harness together: beyond "
                    "that, more processes cannot do more of them; what one task costs tells what the code does."
                ),
                "Server commands include those inside scripts. The last column: 1 would be perfectly even.",
            ],
            plots=[
                Plot(
                    name="growth-workers",
                    title=f"Work that waits grows with the processes: {written(times)} times with {counts[-1]}",
                    x_label="worker processes",
                    y_label=f"tasks/s of {NAP_S:g} s each",
                    curves=[
                        Curve(label="measured", x=counts, y=nap_rates),
                        Curve(label="in proportion to one", x=counts, y=[one * n for n in counts], dashed=True),
                    ],
                    log_y=True,
                )
            ],
        )
    )


def measure_idle(run: Run) -> None:
    """Workers with nothing to do."""
    rows = []
    for count in (run.effort.workers[0], run.effort.workers[-1]):
        server = run.server
        server.empty()
        with ExitStack() as stack:
            workers = [stack.enter_context(SHOAL.program("work", server, concurrency=100)) for _ in range(count)]
            for worker in workers:
                worker.line("READY", 60)
            time.sleep(3.0)
            crew, before = Crew(workers), read(server.client)
            spent = crew.cpu_s()
            time.sleep(IDLE_S)
            work = between(before, read(server.client))
            spent = crew.cpu_s() - spent
            connections = int(server.client.info("clients")["connected_clients"]) - 1
            resident = sum(worker.resident_kib() for worker in workers) / 1024 / count
        each_s = work.seconds * count
        figures = {
            "idle_worker_commands_per_s": work.commands / each_s,
            "idle_worker_cpu_us_per_s": spent * 1e6 / each_s,
            "idle_server_us_per_s": work.cpu_us / each_s,
            "idle_bytes_in_per_s": work.bytes_in / each_s,
            "idle_bytes_out_per_s": work.bytes_out / each_s,
            "worker_connections": connections / count,
            "worker_base_mib": resident,
        }
        run.report.figures.update(figures)
        rows.append((f"{count:,}", *map(written, figures.values())))
    run.report.tables.append(
        Table(
            section="growth",
            title="Growth: workers with nothing to do",
            columns=[
                "processes",
                "server commands/s each",
                "worker CPU µs/s each",
                "server CPU µs/s each",
                "bytes/s to the server",
                "bytes/s from it",
                "connections each",
                "MiB each",
            ],
            rows=rows,
            notes=[
                (
                    "A blocked pull, a look for expired leases, a heartbeat. Server commands include those inside "
                    "scripts; server CPU includes what the server does without any client."
                )
            ],
        )
    )
