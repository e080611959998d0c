"""What a task in flight weighs, and how many streams one process carries."""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence

from tests.benchmarks import cores
from tests.benchmarks.contenders import REFERENCE, SHOAL, Contender
from tests.benchmarks.drivers.decoding import KEY_VARIABLE
from tests.benchmarks.figures import median, percentile, written
from tests.benchmarks.programs import Program
from tests.benchmarks.report import Table
from tests.benchmarks.rows.watching import settled_kib
from tests.benchmarks.run import Run
from tests.benchmarks.targets import at_most

REPLAY = "tests.benchmarks.drivers.replay_server"
FIRST = 100
"""Tasks in flight before the first look: what is set up once is then there."""
STREAMING = "Shoal, with an open model stream each"
PER_S = 50.0
WATCHED = 20
STREAM_ROUNDS = 3


def measure(run: Run) -> None:
    """Waiting tasks of everybody; then Shoal's with open streams, still and talking."""
    contenders = {c.name: c for c in (SHOAL, REFERENCE, *run.peers) if c.naps}
    weights: dict[str, list[float]] = defaultdict(list)
    totals: dict[str, list[float]] = defaultdict(list)
    for turn, name in run.interleaved([*contenders, STREAMING], rounds=1):
        run.say(f"memory, round {turn + 1}: {name}")
        weight = (
            run.attempt("memory", name, _open_streams, run)
            if name == STREAMING
            else run.attempt("memory", name, _naps, run, contenders[name])
        )
        if weight is not None:
            weights[name].append(weight[0])
            totals[name].append(weight[1])
    run.report.tables.append(
        Table(
            section="memory",
            title=f"Memory: KiB per task in flight, {run.effort.in_flight:,} at once",
            columns=["", "KiB/task", "MiB of the process"],
            rows=[(n, written(median(weights[n])), written(median(totals[n]))) for n in weights],
            notes=[
                (
                    f"KiB/task: growth of resident memory from {FIRST} tasks in flight to all of them. What a library "
                    "sets up per slot before it has a task (saq: a connection each) shows in the process' total only."
                )
            ],
        )
    )
    for name, text, bound in (
        (SHOAL.name, "memory per waiting task", 8),
        (STREAMING, "memory per running agent task with an open model stream", 60),
    ):
        if weights[name]:
            run.report.verdicts.append(at_most("memory", text, median(weights[name]), bound, "KiB"))
    _streams(run)


def _naps(run: Run, contender: Contender) -> tuple[float, float]:
    run.server.empty()
    most = run.effort.in_flight
    with contender.program("work", run.server, concurrency=most, job="nap", nap_s=300) as worker:
        worker.line("READY", 60)
        return _growth(run, contender, worker, most - FIRST)


def _open_streams(run: Run) -> tuple[float, float]:
    run.server.empty()
    most = run.effort.in_flight
    with (
        Program(sys.executable, REPLAY, ["--mode", "hold"]) as model,
        _worker(run, f"http://127.0.0.1:{model.line('READY', 30)}/v1", most) as worker,
    ):
        worker.line("READY", 60)
        return _growth(run, SHOAL, worker, most - FIRST)


def _worker(run: Run, base_url: str, concurrency: int) -> Program:
    flags = ["work", "--url", run.server.url, "--job", "openai", "--base-url", base_url]
    return Program(sys.executable, SHOAL.module, [*flags, "--concurrency", str(concurrency)], **{KEY_VARIABLE: "none"})


def _growth(run: Run, contender: Contender, worker: Program, more: int) -> tuple[float, float]:
    """KiB for each task that came on top of the first ones, and MiB of the process then."""
    sizes = []
    for count in (FIRST, more):
        with contender.program("enqueue", run.server, job="nap", nap_s=300, count=count) as producer:
            producer.figures(120)
        time.sleep(1.0)
        sizes.append(settled_kib(worker))
    return (sizes[1] - sizes[0]) / more, sizes[1] / 1024


def _streams(run: Run) -> None:
    """Ever more streams at once in one process; the last one within the limit is what is sustained."""
    most = run.effort.in_flight
    samples: dict[int, list[tuple[float, ...]]] = defaultdict(list)
    sizes = {f"{streams} streams": streams for streams in (most // 4, most // 2, most)}
    for turn, name in run.interleaved(list(sizes), min(STREAM_ROUNDS, run.effort.rounds)):
        run.say(f"memory, round {turn + 1}: {name} of {PER_S:g} chunks a second")
        row = run.attempt("streams", name, _talking, run, sizes[name])
        if row is not None:
            delays, ends, share, finished = row
            samples[sizes[name]].append(
                (
                    percentile(delays, 50),
                    percentile(delays, 99),
                    percentile([*delays, *ends], 99),
                    share * 100,
                    finished / sizes[name] * 100,
                )
            )
    figures = {streams: [median(column) for column in zip(*found, strict=True)] for streams, found in samples.items()}
    rows = [(f"{streams:,}", *map(written, found)) for streams, found in figures.items()]
    if most in figures:
        text = f"{most:,} concurrent streams of {PER_S:g} chunks/s in one process, p99 chunk delay"
        run.report.verdicts.append(at_most("memory", text, figures[most][1], 50, "ms"))
    run.report.tables.append(
        Table(
            section="memory",
            title=f"Streams of {PER_S:g} chunks a second in one worker process",
            columns=[
                "streams at once",
                "chunk delay p50 ms",
                "p99 ms",
                "p99 ms, ends included",
                "worker CPU % of one core",
                "finished %",
            ],
            rows=rows,
            notes=[
                (
                    "Delay: from the model server's write to a subscriber in a third process, OpenAI's format, over "
                    f"{WATCHED} of the streams, while all of them talk: pieces from before the third second are left "
                    "out, when tasks are still being started, and so are those from after the first of these streams "
                    "has ended. All tasks are of one length and end within a moment, which fleets do not; what the "
                    "delay is with that moment stands beside it. The worker has a core to itself; model server, "
                    "Valkey and subscriber, which only measure it, share the others: where they may run on the "
                    "worker's core too, the p99 is mostly how long the kernel lets a process wait (50 to 130 ms from "
                    f"run to run). Medians of {STREAM_ROUNDS} rounds."
                ),
            ],
        )
    )


def _talking(run: Run, streams: int) -> tuple[Sequence[float], Sequence[float], float, int]:
    run.server.empty()
    pieces = round(run.effort.stream_seconds * PER_S)
    flags = ["--mode", "paced", "--per-s", str(PER_S), "--chunks", str(pieces)]
    with (
        Program(sys.executable, REPLAY, flags) as model,
        _worker(run, f"http://127.0.0.1:{model.line('READY', 30)}/v1", streams) as worker,
    ):
        worker.line("READY", 60)
        time.sleep(1.0)
        cpu, began = worker.cpu_s(), time.monotonic()
        with (
            cores.to_itself(worker.pid, model.pid, run.server.pid),
            SHOAL.program("watch", run.server, count=streams, watch=WATCHED, pieces=pieces) as watcher,
        ):
            lines, end = watcher.collect("DONE", 300, keep="DELAYS")
        share = (worker.cpu_s() - cpu) / (time.monotonic() - began)
    delays, ends = map(json.loads, lines)
    if not delays:
        raise RuntimeError("no chunk reached the subscriber")
    return delays, ends, share, json.loads(end)["finished"]
