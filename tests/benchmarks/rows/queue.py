"""Tasks in, tasks out: 5,000 that do nothing, and 2,000 that wait a tenth of a second each."""

from __future__ import annotations

from collections import defaultdict

from tests.benchmarks.contenders import FAST, REFERENCE, SHOAL, SHORT_REFERENCE, Contender, shoals
from tests.benchmarks.figures import median, paired, spread, written
from tests.benchmarks.peers.protocol import NAP_S
from tests.benchmarks.report import Table
from tests.benchmarks.rows.watching import drain
from tests.benchmarks.run import Run
from tests.benchmarks.targets import at_most, ratio_at_least

CONCURRENCY = 100
NAP_CONCURRENCY = 500
Samples = dict[str, dict[str, list[float]]]


def measure(run: Run) -> None:
    """Both rows, all contenders in turn."""
    contenders = {c.name: c for c in (*shoals(), REFERENCE, SHORT_REFERENCE, *run.peers)}
    samples: Samples = defaultdict(lambda: defaultdict(list))
    for turn, name in run.interleaved(list(contenders)):
        run.say(f"queue, round {turn + 1}: {name}")
        found = run.attempt("queue", name, _noop, run, contenders[name])
        for figure, value in (found or {}).items():
            samples[name][figure].append(value)
    nappers = {name: c for name, c in contenders.items() if c.naps}
    for turn, name in run.interleaved(list(nappers)):
        run.say(f"waiting, round {turn + 1}: {name}")
        factor = run.attempt("waiting", name, _naps, run, nappers[name])
        if factor is not None:
            samples[name]["naps"].append(factor)
    _tables(run, contenders, samples)
    _judge(run, contenders, samples)


def _noop(run: Run, contender: Contender) -> dict[str, float]:
    count = run.effort.tasks * contender.tasks_times
    run.server.empty()
    with contender.program("enqueue", run.server, job="noop", count=count, singly=1) as producer:
        singly = producer.figures(120)["seconds"]
    run.server.empty()
    with contender.program("enqueue", run.server, job="noop", count=count) as producer:
        enqueued = producer.figures(120)
    with contender.program("work", run.server, concurrency=CONCURRENCY, job="noop") as worker:
        worker.line("READY", 60)
        seen = drain(contender, run.server, worker, total=count, until=count)
    return {
        "enqueue": (count - 1) / enqueued["seconds"],
        "singly": (count - 1) / singly,
        "drain": seen.per_s,
        "cpu": seen.cpu_us,
    }


def _naps(run: Run, contender: Contender) -> float:
    """From the first start, as the worker tells it, to the last result: as a multiple of what it takes at least."""
    count = run.effort.naps
    run.server.empty()
    with contender.program("enqueue", run.server, job="nap", count=count) as producer:
        producer.figures(120)
    with contender.program("work", run.server, concurrency=NAP_CONCURRENCY, job="nap") as worker:
        worker.line("READY", 60)
        began_at_s = float(worker.line("BEGAN", 60))
        last = drain(contender, run.server, worker, total=count, until=count).last
    return (last.at_s - began_at_s) / (NAP_S * count / NAP_CONCURRENCY)


def _tables(run: Run, contenders: dict[str, Contender], samples: Samples) -> None:
    def cell(name: str, figure: str) -> str:
        found = samples[name][figure]
        return written(median(found)) if found else "—"

    effort = run.effort
    figures = ("enqueue", "singly", "drain", "cpu", "naps")
    run.report.tables.append(
        Table(
            section="queue",
            title=f"Queue: {effort.tasks:,} tasks that do nothing, 1 KB in, 1 KB result stored, one worker process",
            columns=["", "enqueue/s", "one by one/s", "drain/s", "worker CPU µs/task", "naps, times the ideal"],
            rows=[(name, *(cell(name, figure) for figure in figures)) for name in contenders],
            notes=[
                (
                    f"Median of {effort.rounds} interleaved rounds. Largest over smallest drain rate of one contender: "
                    f"{written(max((spread(s['drain']) for s in samples.values() if s['drain']), default=1.0))}."
                ),
                (
                    "*enqueue*: one producer, several tasks per call where the library can, else 20 calls under way. "
                    "*one by one*: one task per call, 20 calls under way."
                ),
                f"*drain*: {CONCURRENCY} tasks at once; from the first stored result to the last, seen from outside.",
                f"Shoal and the references get {FAST * effort.tasks:,} tasks, to be looked at for long enough.",
                (
                    f"*naps*: {effort.naps:,} tasks of {NAP_S} s, {NAP_CONCURRENCY} at once; "
                    f"1 would be {NAP_S * effort.naps / NAP_CONCURRENCY:g} s from the first start to the last result."
                ),
                *_beside_references(samples),
                *(f"{c.name}: {c.settings}." for c in contenders.values() if c.settings),
            ],
        )
    )


def _beside_references(samples: Samples) -> list[str]:
    drains = [samples[c.name]["drain"] for c in (SHOAL, REFERENCE, SHORT_REFERENCE)]
    if not all(drains):
        return []
    mine, full, short = drains
    return [
        (
            f"Shoal drains {written(paired(mine, full))} times as fast as the reference that makes all of its writes, "
            f"which is its measure, and {written(paired(mine, short))} times as fast as the one of the main writes."
        )
    ]


def _judge(run: Run, contenders: dict[str, Contender], samples: Samples) -> None:
    mine = samples[SHOAL.name]
    verdicts = run.report.verdicts
    for figure, bound, text in (
        ("enqueue", 5, "enqueue, one producer, best call of each"),
        ("singly", 5, "enqueue, one producer, one task per call"),
        ("drain", 8, "drain, no-op task"),
    ):
        others = {n: samples[n][figure] for n, c in contenders.items() if c.is_peer and samples[n][figure]}
        if others and mine[figure]:
            best = max(others, key=lambda name: median(others[name]))
            verdicts.append(ratio_at_least("queue", text, mine[figure], others[best], bound, best, "tasks/s"))
    reference = samples[REFERENCE.name]["drain"]
    if mine["drain"] and reference:
        verdicts.append(
            ratio_at_least(
                "queue",
                "drain, no-op task",
                mine["drain"],
                reference,
                0.5,
                "the reference of the same writes",
                "tasks/s",
            )
        )
    if mine["naps"]:
        text = f"{run.effort.naps:,} of {NAP_S} s each at concurrency {NAP_CONCURRENCY}"
        verdicts.append(at_most("queue", text, median(mine["naps"]), 1.3, "times the ideal"))
