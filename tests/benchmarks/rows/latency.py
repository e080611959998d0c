"""How soon work begins when nothing else is going on."""

from __future__ import annotations

import time
from collections import defaultdict

from tests.benchmarks.contenders import REFERENCE, SHOAL, Contender, shoals
from tests.benchmarks.figures import median, percentile, written
from tests.benchmarks.report import Table
from tests.benchmarks.run import Run
from tests.benchmarks.targets import at_most, ratio_at_most

FIRST_CHUNK = "first chunk at the subscriber"
WARM = 10
"""The first tasks of a worker's life load code and open connections; they are left out."""

MOST_ROUNDS = 3


def measure(run: Run) -> None:
    """Enqueue to start for everybody; enqueue to first chunk for Shoal, since nobody else streams."""
    contenders = {c.name: c for c in (*shoals(), REFERENCE, *run.peers)}
    p50: dict[str, list[float]] = defaultdict(list)
    p99: dict[str, list[float]] = defaultdict(list)
    rounds = min(MOST_ROUNDS, run.effort.rounds)
    for turn, name in run.interleaved(list(contenders), rounds):
        run.say(f"latency, round {turn + 1}: {name}")
        found = run.attempt("latency", name, _starts, run, contenders[name])
        if found:
            p50[name].append(percentile(found, 50))
            p99[name].append(percentile(found, 99))
    for turn in range(rounds):
        run.say(f"latency, round {turn + 1}: {FIRST_CHUNK}")
        chunks = run.attempt("latency", FIRST_CHUNK, _first_chunks, run)
        if chunks:
            p50[FIRST_CHUNK].append(percentile(chunks, 50))
            p99[FIRST_CHUNK].append(percentile(chunks, 99))
    rows = [(n, written(median(p50[n])), written(median(p99[n]))) for n in [*contenders, FIRST_CHUNK] if p50[n]]
    run.report.tables.append(
        Table(
            section="latency",
            title="Latency: enqueue to start on an idle worker",
            columns=["", "p50 ms", "p99 ms"],
            rows=[(f"Shoal, {name}" if name == FIRST_CHUNK else name, *cells) for name, *cells in rows],
            notes=[
                (
                    f"{run.effort.stamps} tasks a round, one every 15 to 45 ms, {rounds} rounds; "
                    "medians of the rounds' percentiles."
                ),
                "Start: the first line of the task's own code; in Shoal, the provider's first line.",
                f"{FIRST_CHUNK.capitalize()}: in the process that submitted the task, the provider answering at once.",
            ],
        )
    )
    _judge(run, contenders, p50, p99)


def _starts(run: Run, contender: Contender) -> list[float]:
    run.server.empty()
    with contender.program("work", run.server, concurrency=100, job="stamp") as worker:
        worker.line("READY", 60)
        time.sleep(1.0)  # READY is printed just before the peers' loops begin; an idle worker is what is measured
        with contender.program("trickle", run.server, count=run.effort.stamps + WARM) as producer:
            producer.figures(120)
        return [float(line) for line in worker.pending("START")][WARM:]


def _first_chunks(run: Run) -> list[float]:
    run.server.empty()
    with SHOAL.program("work", run.server, concurrency=100, job="stamp") as worker:
        worker.line("READY", 60)
        with SHOAL.program("first-chunks", run.server, count=run.effort.stamps + WARM) as consumer:
            lines, _ = consumer.collect("DONE", 120, keep="FIRST")
            return [float(line) for line in lines][WARM:]


def _judge(
    run: Run, contenders: dict[str, Contender], p50: dict[str, list[float]], p99: dict[str, list[float]]
) -> None:
    verdicts, mine = run.report.verdicts, SHOAL.name
    others = {n: median(p50[n]) for n, c in contenders.items() if c.is_peer and p50[n]}
    if p50[mine]:
        if others:
            best = min(others, key=others.__getitem__)
            text = "enqueue to start, idle worker, p50"
            verdicts.append(ratio_at_most("latency", text, p50[mine], p50[best], 0.8, best, "ms"))
        verdicts.append(at_most("latency", "enqueue to start, idle worker, p99", median(p99[mine]), 5, "ms"))
    if p50[FIRST_CHUNK]:
        text = "enqueue to first chunk at the subscriber, p50"
        verdicts.append(at_most("latency", text, median(p50[FIRST_CHUNK]), 4, "ms"))
