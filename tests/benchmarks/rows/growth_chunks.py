"""What chunks cost by their rate and size, from the provider to the server's replay log."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, NamedTuple

import redis

from tests.benchmarks.contenders import SHOAL
from tests.benchmarks.figures import written
from tests.benchmarks.meter import between, read
from tests.benchmarks.plots import Curve, Plot
from tests.benchmarks.programs import Program
from tests.benchmarks.report import Table
from tests.benchmarks.run import Run

LOAD = "tests.benchmarks.drivers.load"
STREAMS = 100
LOADS = ((100, 1), (100, 5), (100, 20), (100, 50), (100, 100), (400, 100))
"""Streams, and pieces a second of each."""
LOOKED_AT = 5
CHARS = 60
SIZES = (20, 60, 500, 4_000)
SIZES_AT = 20
SETTLE_S = 2.0


class Point(NamedTuple):
    """A worker process with a steady stream of pieces."""

    pieces_per_s: float
    worker_us: float
    server_us: float
    commands: float
    scripts: float
    bytes_in: float
    bytes_out: float
    chunks: float
    """Chunks that became of a piece: less than one where pieces are joined."""


def measure(run: Run) -> None:
    """Rates at one size, then sizes at one rate; nobody listens."""
    by_load = {load: _steady(run, *load, CHARS) for load in LOADS}
    by_size = {size: _steady(run, STREAMS, SIZES_AT, size) for size in SIZES}
    run.report.curves["chunks"] = [_without_idle(run, point) for point in by_load.values()]
    small, large = by_size[SIZES[1]], by_size[SIZES[-1]]
    run.report.figures["chunk_bytes_in_per_char"] = (large.bytes_in - small.bytes_in) / (SIZES[-1] - SIZES[1])
    columns = [
        "pieces/s",
        "worker CPU µs/piece",
        "server CPU µs/piece",
        "server commands/piece",
        "script calls/piece",
        "bytes to the server/piece",
        "bytes from it/piece",
        "chunks/piece",
    ]
    rows = [
        *((_row(streams, rate, CHARS), *map(written, point)) for (streams, rate), point in by_load.items()),
        *((_row(STREAMS, SIZES_AT, size), *map(written, point)) for size, point in by_size.items()),
    ]
    totals = [point.pieces_per_s for point in by_load.values()]
    run.report.tables.append(
        Table(
            section="growth",
            title="Growth: chunk rate and size, one worker process",
            columns=["", *columns],
            rows=rows,
            notes=[
                (
                    "A provider inside the worker's process says the pieces, so that no HTTP is in these figures: what "
                    "reading a model's stream adds is in the table of decoding."
                )
            ],
            plots=[
                Plot(
                    name="growth-chunks",
                    title="The more chunks a process has, the less each costs: they travel together",
                    x_label="pieces per second of one process",
                    y_label="CPU µs per piece",
                    curves=[
                        Curve(label="worker", x=totals, y=[point.worker_us for point in by_load.values()]),
                        Curve(label="server", x=totals, y=[point.server_us for point in by_load.values()]),
                    ],
                    log_y=True,
                )
            ],
        )
    )


def _said(client: redis.Redis, chars: int) -> float:
    """Pieces of one stream so far, on the average of a few."""
    keys: Any = sorted(client.scan_iter("agent-tasks:chunks:*", count=1_000))[:LOOKED_AT]
    streams: list[Any] = [client.xrange(key) for key in keys]
    chunks = [json.loads(fields[b"chunk"]) for entries in streams for _, fields in entries]
    return sum(len(chunk.get("content", "")) for chunk in chunks) / chars / max(1, len(keys))


def _without_idle(run: Run, point: Point) -> dict[str, float]:
    """The costs of a piece alone, for the capacity model, which counts what a worker does anyway by itself."""
    idle = run.report.figures
    rate = point.pieces_per_s
    return {
        "pieces_per_s": rate,
        "worker_us": point.worker_us - idle.get("idle_worker_cpu_us_per_s", 0.0) / rate,
        "server_us": point.server_us - idle.get("idle_server_us_per_s", 0.0) / rate,
        "commands": point.commands - idle.get("idle_worker_commands_per_s", 0.0) / rate,
        "bytes_in": point.bytes_in - idle.get("idle_bytes_in_per_s", 0.0) / rate,
    }


def _row(streams: int, rate: int, chars: int) -> str:
    return f"{streams} streams of {rate}/s, {chars:,} characters"


def _steady(run: Run, streams: int, rate: int, chars: int) -> Point:
    run.say(f"growth: {_row(streams, rate, chars)}")
    run.server.empty()
    told = json.dumps({"pieces": 1_000_000, "every_s": 1 / rate, "chars": chars})
    with SHOAL.program("work", run.server, concurrency=streams, job="steady") as worker:
        worker.line("READY", 60)
        flags = ["steady", "--url", run.server.url, "--count", str(streams), "--told", told]
        with Program(sys.executable, LOAD, flags) as producer:
            producer.figures(60)
        time.sleep(SETTLE_S)
        said, spent, before = _said(run.server.client, chars), worker.cpu_s(), read(run.server.client)
        time.sleep(run.effort.window_s)
        work, spent = between(before, read(run.server.client)), worker.cpu_s() - spent
        said = _said(run.server.client, chars) - said
    chunks = work.calls.get("xadd", 0)
    if not chunks:
        raise RuntimeError("no chunk arrived")
    pieces = said * streams  # fewer than the provider was to say, where the process is at its limit
    return Point(
        pieces_per_s=pieces / work.seconds,
        worker_us=spent * 1e6 / pieces,
        server_us=work.cpu_us / pieces,
        commands=work.commands / pieces,
        scripts=work.scripts / pieces,
        bytes_in=work.bytes_in / pieces,
        bytes_out=work.bytes_out / pieces,
        chunks=chunks / pieces,
    )
