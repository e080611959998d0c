"""Chunks from the model to whoever listens: how many, and how late."""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.benchmarks.contenders import SHOAL
from tests.benchmarks.drivers.models import PIECE
from tests.benchmarks.figures import median, percentile, written
from tests.benchmarks.programs import Program
from tests.benchmarks.report import Table
from tests.benchmarks.rows.watching import drain
from tests.benchmarks.run import Run
from tests.benchmarks.targets import at_least, at_most

TASKS = 50
STREAMS = 20
MINE = "**Shoal**, whole tasks: model loop, joining, fencing, log, publish, result"
REFERENCES = {
    "joined": "reference: 64 pieces joined, one XADD + PUBLISH",
    "pipelined": "reference: XADD + PUBLISH each, pipelines of 64",
    "one": "reference: one awaited PUBLISH each, no log",
}


def measure(run: Run) -> None:
    """Throughput beside the references, then the delay of single pieces."""
    rates: dict[str, list[float]] = defaultdict(list)
    measures: dict[str, Callable[[], float]] = {MINE: partial(_burst, run)}
    for mode, label in REFERENCES.items():
        measures[label] = partial(_reference, run, mode)
    for turn, name in run.interleaved(list(measures)):
        run.say(f"chunks, round {turn + 1}: {name}")
        rate = run.attempt("chunks", name, measures[name])
        if rate is not None:
            rates[name].append(rate)
    p50, p99 = [], []
    for turn in range(run.effort.rounds):
        run.say(f"chunks, round {turn + 1}: delay")
        delays = run.attempt("chunk delay", MINE, _ticks, run)
        if delays:
            p50.append(percentile(delays, 50))
            p99.append(percentile(delays, 99))
    rows = [(name, written(median(rates[name]) if rates[name] else None)) for name in measures]
    notes = [
        (
            f"{len(PIECE)}-byte pieces; Shoal: {TASKS} tasks at once in one worker process, and every byte looked for "
            "in the replay log afterwards. The references publish on one channel and do nothing else."
        )
    ]
    if p50:
        delay = f"p50 {written(median(p50))} ms, p99 {written(median(p99))} ms"
        notes.append(
            f"A single piece from provider to a subscriber in another process, {STREAMS} streams of 50/s: {delay}."
        )
        run.report.verdicts.append(at_most("chunks", "added latency of a single chunk, p50", median(p50), 2, "ms"))
        run.report.verdicts.append(at_most("chunks", "added latency of a single chunk, p99", median(p99), 15, "ms"))
    if rates[MINE]:
        text = "chunks published and logged, one worker process, joined"
        run.report.verdicts.append(at_least("chunks", text, median(rates[MINE]), 100_000, "/s"))
    title = "Chunks: pieces published and logged by one process"
    run.report.tables.append(Table(section="chunks", title=title, columns=["", "pieces/s"], rows=rows, notes=notes))


def _burst(run: Run) -> float:
    pieces = run.effort.tasks * 4 // 5
    run.server.empty()
    with SHOAL.program("work", run.server, concurrency=100, job="burst") as worker:
        worker.line("READY", 60)
        time.sleep(1.0)
        ids = _submit_burst(run, pieces)
        begun_at = float(worker.line("BEGIN", 60))
        end = drain(SHOAL, run.server, worker, total=TASKS, until=TASKS).last
    _check_log(run, ids, pieces)
    return TASKS * pieces / (end.at_s - begun_at)


def _submit_burst(run: Run, pieces: int) -> list[str]:
    pipe = run.server.client.pipeline(transaction=False)
    for _ in range(TASKS):
        pipe.xadd("agent-tasks", {"prompt": str(pieces), "enqueued_at": "2026-01-01T00:00:00Z"})
    return [entry.decode() for entry in pipe.execute()]


def _check_log(run: Run, ids: list[str], pieces: int) -> None:
    """Every byte must be in the replay log: a fast way to lose chunks is no way."""
    for task_id in ids:
        entries: Any = run.server.client.xrange(f"agent-tasks:chunks:{task_id}")
        chunks = [json.loads(fields[b"chunk"]) for _, fields in entries]
        text = sum(len(chunk.get("content", "")) for chunk in chunks if chunk["type"] == "CONTENT")
        if text != pieces * len(PIECE) or not chunks[-1].get("is_final"):
            raise RuntimeError(f"task {task_id} has {text} bytes of text in its log, not {pieces * len(PIECE)}")


def _reference(run: Run, mode: str) -> float:
    run.server.empty()
    module = "tests.benchmarks.drivers.chunk_reference"
    with Program(sys.executable, module, ["--url", run.server.url, "--mode", mode]) as program:
        return float(program.figures(60)["per_s"])


def _ticks(run: Run) -> list[float]:
    run.server.empty()
    with SHOAL.program("work", run.server, concurrency=100, job="ticks") as worker:
        worker.line("READY", 60)
        with SHOAL.program("watch", run.server, count=STREAMS, watch=STREAMS, pieces=250) as watcher:
            lines, _ = watcher.collect("DONE", 120, keep="DELAYS")
    delays: list[float] = json.loads(lines[0])
    return delays
