"""What open runs cost one process: memory, and the leases that it keeps for them."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, NamedTuple

import redis

from tests.benchmarks.contenders import SHOAL
from tests.benchmarks.drivers.decoding import KEY_VARIABLE
from tests.benchmarks.figures import written
from tests.benchmarks.meter import between, read
from tests.benchmarks.peers.protocol import TEXT
from tests.benchmarks.plots import Curve, Plot
from tests.benchmarks.programs import DriverFailed, Program
from tests.benchmarks.report import Table
from tests.benchmarks.rows.watching import GROUP, QUEUE, pending, settled_kib
from tests.benchmarks.run import Run

REPLAY = "tests.benchmarks.drivers.replay_server"
LEASE_S = 6.0
"""Renewed every third of it: three rounds of renewals fit into the time that is looked at."""
LOOK_S = 6.0
STARTED_WITHIN_S = 120.0
SCANS = 20
SPOKEN = 1_000
LOAD = "tests.benchmarks.drivers.load"
KEY = {KEY_VARIABLE: "none"}


class Still(NamedTuple):
    """One process with so many runs that wait."""

    kib: float
    start_us: float
    worker_share: float
    """Of one core."""
    server_share: float
    renewals_per_s: float
    commands_per_s: float
    bytes_per_s: float
    server_bytes: float
    """Of the server's memory, for each run."""
    scan_us: float
    """One look for expired leases, by the server."""


def measure(run: Run) -> None:
    """Runs that wait for a model, by themselves and with an open stream each."""
    run.say("growth: no open run")
    bare = _still(run, 0)
    points, streaming = dict[int, Still](), dict[int, float]()
    for count in run.effort.open_runs:
        run.say(f"growth: {count:,} open runs")
        points[count] = _still(run, count)
        streaming[count] = _streaming_kib(run, count)
    run.report.figures["spoken_run_kib"] = (_spoken_kib(run) - bare.kib) / SPOKEN
    most, runs = points[run.effort.open_runs[-1]], run.effort.open_runs[-1]
    run.report.figures.update(
        {
            "run_kib": (most.kib - bare.kib) / runs,
            "streaming_run_kib": (streaming[runs] - bare.kib) / runs,
            "renewal_worker_us": (most.worker_share - bare.worker_share) * 1e6 / most.renewals_per_s,
            "renewal_server_us": (most.server_share - bare.server_share) * 1e6 / most.renewals_per_s,
            "renewal_commands": (most.commands_per_s - bare.commands_per_s) / most.renewals_per_s,
            "running_bytes": most.server_bytes - len(TEXT),
            "renewal_bytes": (most.bytes_per_s - bare.bytes_per_s) / most.renewals_per_s,
            "scan_us_per_run": most.scan_us / runs,
        }
    )
    _table(run, points, streaming, bare)


def _still(run: Run, count: int) -> Still:
    run.server.empty()
    options: dict[str, object] = {"concurrency": max(count, 1), "job": "nap", "nap_s": 500, "lease": LEASE_S}
    with SHOAL.program("work", run.server, **options) as worker:
        worker.line("READY", 60)
        time.sleep(1.0)
        spent, before = worker.cpu_s(), read(run.server.client)
        _start(run, worker, count)
        grown = between(before, read(run.server.client)).memory
        start_us = (worker.cpu_s() - spent) * 1e6 / max(count, 1)
        kib = settled_kib(worker)
        spent, before = worker.cpu_s(), read(run.server.client)
        time.sleep(LOOK_S)
        work, spent = between(before, read(run.server.client)), worker.cpu_s() - spent
        return Still(
            kib=kib,
            start_us=start_us,
            worker_share=spent / work.seconds,
            server_share=work.cpu_s / work.seconds,
            renewals_per_s=work.calls.get("xclaim", 0) / work.seconds,
            commands_per_s=work.commands / work.seconds,
            bytes_per_s=work.bytes_in / work.seconds,
            server_bytes=grown / max(count, 1),
            scan_us=_scan_us(run.server.client) if count else 0.0,
        )


def _spoken_kib(run: Run) -> float:
    """Runs that have said something, without a connection to a model each."""
    run.server.empty()
    told = json.dumps({"pieces": 1_000, "every_s": 2.0, "chars": 60}).ljust(len(TEXT))
    with SHOAL.program("work", run.server, concurrency=SPOKEN, job="steady") as worker:
        worker.line("READY", 60)
        flags = ["fill", "--url", run.server.url, "--count", str(SPOKEN), "--told", told]
        with Program(sys.executable, LOAD, flags) as producer:
            producer.figures(60)
        time.sleep(5.0)
        return worker.resident_kib()


def _streaming_kib(run: Run, count: int) -> float:
    run.server.empty()
    with Program(sys.executable, REPLAY, ["--mode", "hold"]) as model:
        base_url = f"http://127.0.0.1:{model.line('READY', 30)}/v1"
        flags = ["work", "--url", run.server.url, "--job", "openai", "--base-url", base_url]
        with Program(sys.executable, SHOAL.module, [*flags, "--concurrency", str(count)], **KEY) as worker:
            worker.line("READY", 60)
            _start(run, worker, count)
            return settled_kib(worker)


def _start(run: Run, worker: Program, count: int) -> None:
    """Submit so many tasks, and return when all are running."""
    if not count:
        return
    with SHOAL.program("enqueue", run.server, job="nap", nap_s=500, count=count) as producer:
        producer.figures(120)
    deadline = time.monotonic() + STARTED_WITHIN_S
    while pending(run.server.client) < count:
        if time.monotonic() > deadline or not worker.alive():
            raise DriverFailed(f"{pending(run.server.client):,} of {count:,} runs have begun")
        time.sleep(0.02)


def _scan_us(client: redis.Redis) -> float:
    """What the server needs to look through all leases for expired ones, of which there is none."""
    before: Any = client.info("commandstats")
    for _ in range(SCANS):
        client.xpending_range(QUEUE, GROUP, min="-", max="+", count=600, idle=3_600_000)
    after: Any = client.info("commandstats")
    calls = after["cmdstat_xpending"]["calls"] - before["cmdstat_xpending"]["calls"]
    return float(after["cmdstat_xpending"]["usec"] - before["cmdstat_xpending"]["usec"]) / float(calls)


def _table(run: Run, points: dict[int, Still], streaming: dict[int, float], bare: Still) -> None:
    rows = [
        (
            f"{count:,}",
            *map(
                written,
                (
                    (still.kib - bare.kib) / count,
                    (streaming[count] - bare.kib) / count,
                    still.start_us,
                    still.worker_share * 100,
                    still.server_share * 100,
                    still.renewals_per_s,
                    still.server_bytes,
                    still.scan_us,
                ),
            ),
        )
        for count, still in points.items()
    ]
    counts = list(points)
    each = run.report.figures["streaming_run_kib"]
    run.report.tables.append(
        Table(
            section="growth",
            title="Growth: open runs in one process",
            columns=[
                "runs at once",
                "KiB/run",
                "KiB/run with an open model stream",
                "CPU µs to start one",
                "worker CPU %",
                "server CPU %",
                "renewals/s",
                "server bytes/run",
                "µs to look for expired leases",
            ],
            rows=rows,
            notes=[
                (
                    f"Beyond a process with none ({written(bare.kib / 1024)} MiB, {written(bare.worker_share * 100)} % "
                    f"of a core). Leases of {LEASE_S:g} s instead of 30, so that renewals show: with 30 s there are a "
                    "fifth of them. What is set up once for the first run or stream weighs on the smaller numbers."
                ),
                (
                    "The last column is one look of one worker, in the server: it reads all leases of its queue. One "
                    "of all workers looks every two seconds, so this grows with the running tasks of one queue, and "
                    "not with workers."
                ),
            ],
            plots=[
                Plot(
                    name="growth-runs",
                    title=f"Memory grows by {written(each)} KiB with each open model stream",
                    x_label="open runs in one process",
                    y_label="MiB of the process",
                    curves=[
                        Curve(label="with an open stream each", x=counts, y=[streaming[n] / 1024 for n in counts]),
                        Curve(label="waiting", x=counts, y=[points[n].kib / 1024 for n in counts]),
                    ],
                    log_y=True,
                )
            ],
        )
    )
