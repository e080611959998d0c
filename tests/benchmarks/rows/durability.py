"""What it costs that a crash repeats nothing: tasks drained with the journal and short leases, and without."""

from __future__ import annotations

from collections import defaultdict

from tests.benchmarks.contenders import SHOAL
from tests.benchmarks.figures import median, paired, written
from tests.benchmarks.report import Table
from tests.benchmarks.rows.watching import drain
from tests.benchmarks.run import Run
from tests.benchmarks.targets import at_least

CONCURRENCY = 100
LEAST_SHARE = 0.85
VARIANTS: dict[str, dict[str, object]] = {
    "journal and leases": {"journal": 1, "lease": 30},
    "leases alone": {"journal": 0, "lease": 30},
    "neither": {"journal": 0, "lease": 3600},
}
"""A lease of an hour is never renewed here."""
JOBS = {"noop": "one model call", "tools": "three model calls, two tool calls"}


def measure(run: Run) -> None:
    """All variants in turn, with each kind of task."""
    samples: dict[tuple[str, str], list[float]] = defaultdict(list)
    for job in JOBS:
        for turn, name in run.interleaved(list(VARIANTS)):
            run.say(f"durability, round {turn + 1}: {name}, {JOBS[job]}")
            if found := run.attempt("durability", name, _rate, run, job, VARIANTS[name]):
                samples[name, job].append(found)
    rows = [(name, *(_cell(samples[name, job]) for job in JOBS)) for name in VARIANTS]
    run.report.tables.append(
        Table(
            section="durability",
            title="Durability: tasks/s of one worker process, with and without what makes runs survive a crash",
            columns=["", *JOBS.values()],
            rows=rows,
            notes=["Models and tools answer at once, so that nothing hides the cost. 100 tasks at once."],
        )
    )
    full, bare = (samples[name, "noop"] for name in ("journal and leases", "neither"))
    if full and bare:
        share = paired(full, bare)
        text = "drain with journal and leases, as a share of the same without (one model call)"
        run.report.verdicts.append(at_least("durability", text, share, LEAST_SHARE, ""))


def _cell(samples: list[float]) -> str:
    return written(median(samples)) if samples else "—"


def _rate(run: Run, job: str, options: dict[str, object]) -> float:
    count = run.effort.drained if job == "noop" else run.effort.drained // 4
    run.server.empty()
    with SHOAL.program("enqueue", run.server, job="noop", count=count) as producer:
        producer.figures(120)
    with SHOAL.program("work", run.server, concurrency=CONCURRENCY, job=job, **options) as worker:
        worker.line("READY", 60)
        return drain(SHOAL, run.server, worker, total=count, until=count).per_s
