"""What a soak did and what came of it, as Markdown for the documentation and as JSON for programs."""

from __future__ import annotations

import datetime
import os
import platform
from collections import defaultdict
from collections.abc import Iterator, Mapping

import msgspec

from tests.faults.brokers.engines import ENGINES
from tests.faults.diaries import Injected
from tests.faults.schedule import BROKER_RESTARTS, FaultKind
from tests.faults.soak import Outcome

HARMS = ("lost", "duplicated", "paid twice", "effect repeated")

Span = tuple[str, float, float]
"""A task's key, and from when until when a worker had it."""


def render(outcome: Outcome) -> str:
    """The tables, without the marks around them."""
    return "\n\n".join([_setting(outcome), _fault_table(outcome), _figure_table(outcome), _problems(outcome)]).strip()


def as_json(outcome: Outcome) -> bytes:
    """All figures, the findings and the schedule."""
    document = {
        "seed": outcome.options.seed,
        "workers": outcome.options.workers,
        "concurrency": outcome.options.concurrency,
        "lease_s": outcome.options.lease_s,
        "took_s": round(outcome.took_s, 1),
        "engine": outcome.options.engine,
        "broker_restarts": broker_restarts(outcome),
        "figures": dict(sorted(outcome.figures.items())),
        "findings": [str(finding) for finding in outcome.findings],
        "schedule": [str(fault) for fault in outcome.schedule.faults],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2)


def _setting(outcome: Outcome) -> str:
    options, cores = outcome.options, os.cpu_count()
    return (
        f"Soak of {datetime.datetime.now(datetime.UTC):%Y-%m-%d}: {outcome.figures['accepted']:,} tasks in "
        f"{outcome.took_s / 60:.0f} minutes on {cores} cores (Python {platform.python_version()}), "
        f"{options.workers} workers at {options.concurrency} tasks each, leases of {options.lease_s:g} s, "
        f"{ENGINES[options.engine].setting}; {sum(_times(outcome).values()):,} faults, "
        f"{broker_restarts(outcome)} of them restarts of the broker. Again: `{options.command}`."
    )


def broker_restarts(outcome: Outcome) -> int:
    """How often the broker, or its primary, was ended and started again."""
    times = _times(outcome)
    return sum(times[kind.value] for kind in BROKER_RESTARTS)


def _times(outcome: Outcome) -> defaultdict[str, int]:
    times: defaultdict[str, int] = defaultdict(int)
    for fault in outcome.evidence.faults:
        times[fault.kind] += 1
    return times


def _fault_table(outcome: Outcome) -> str:
    """Each kind of fault: how often, how many tasks it met, and what became of them."""
    times, met = _times(outcome), _tasks_met(outcome)
    lines = ["| fault | injected | tasks under way | lost | duplicated | paid twice | effect repeated |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|")
    for kind in FaultKind:
        if times[kind.value]:
            tasks = met[kind.value]
            harms = " | ".join(f"{len(tasks & outcome.harmed.get(harm, set())):,}" for harm in HARMS)
            lines.append(f"| {kind.value} | {times[kind.value]:,} | {len(tasks):,} | {harms} |")
    figures = outcome.figures
    totals = " | ".join(f"**{figures.get(harm, 0):,}**" for harm in HARMS)
    lines.append(f"| **all** | **{sum(times.values()):,}** | **{figures['accepted']:,}** (all tasks) | {totals} |")
    return "\n".join(lines)


def _tasks_met(outcome: Outcome) -> Mapping[str, set[str]]:
    """Kind of fault -> keys of the tasks that its targets had at that time."""
    spans = _spans(outcome)
    met: defaultdict[str, set[str]] = defaultdict(set)
    for fault in outcome.evidence.faults:
        for span in _spans_of(fault, spans):
            if span[1] <= fault.until and fault.at <= span[2]:
                met[fault.kind].add(span[0])
    return met


def _spans(outcome: Outcome) -> Mapping[str, list[Span]]:
    """Worker -> its tasks, from a task's first model call there to its last one's end."""
    ends: dict[tuple[str, str], tuple[float, float]] = {}
    for call in outcome.evidence.calls:
        place = (call.start.worker, call.start.key)
        first, last = ends.get(place, (call.start.at, call.ended_at))
        ends[place] = (min(first, call.start.at), max(last, call.ended_at))
    spans: defaultdict[str, list[Span]] = defaultdict(list)
    for (worker, key), (first, last) in ends.items():
        spans[worker].append((key, first, last))
    return spans


def _spans_of(fault: Injected, spans: Mapping[str, list[Span]]) -> Iterator[Span]:
    if fault.target in ("broker", "clients", "all"):
        for found in spans.values():
            yield from found
    else:
        yield from spans.get(fault.target, ())


def _figure_table(outcome: Outcome) -> str:
    lines = ["| what the checker counted | |", "|---|--:|"]
    shown = {name: count for name, count in outcome.figures.items() if not name.startswith("fault: ")}
    lines += [f"| {name} | {count:,} |" for name, count in sorted(shown.items()) if name not in HARMS]
    return "\n".join(lines)


def _problems(outcome: Outcome) -> str:
    if not outcome.findings:
        return ""
    lines = [f"{len(outcome.findings)} promises were broken:", ""]
    return "\n".join([*lines, *(f"- {str(finding)[:300]}" for finding in outcome.findings[:50])])
