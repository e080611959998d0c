"""Whether a long queue, or much that has ended, slows a worker down, and what it weighs."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import redis

from tests.benchmarks.contenders import SHOAL, Contender
from tests.benchmarks.figures import median, written
from tests.benchmarks.meter import between, read
from tests.benchmarks.peers.protocol import TEXT
from tests.benchmarks.plots import Curve, Plot
from tests.benchmarks.programs import Program
from tests.benchmarks.remains import CHUNKS, GONE, PARTS, leave
from tests.benchmarks.report import Table
from tests.benchmarks.rows.watching import QUEUE, metered_drain
from tests.benchmarks.run import Run
from tests.benchmarks.targets import at_least

FLAT = 0.8
"""A rate that is this share of the first one's still counts as the same: rounds of one figure differ by as much."""
ROUNDS = 2
MOST_OFTEN = 100_000
"""Longer queues are measured once less: filling them takes the time."""
LOAD = "tests.benchmarks.drivers.load"
LISTS = tuple(f"{QUEUE}:state:list:{family}" for family in ("objects", "remote", "settings"))
"""Of the families that a worker reads when it starts (`queue_backends.redis.keys`)."""
EXPIRED = 0.1
"""What has expired before, as a part of what is there; at least what a drain leaves."""
CHUNK_CHARS = (60, 1_000)
SIZES = (100, 4_096)
"""Prompt bytes, for what a waiting task weighs beside its prompt."""


class Point(NamedTuple):
    """What a worker did at one depth."""

    per_s: float
    worker_us: float
    server_us: float
    commands: float
    scripts: float


class Pair(NamedTuple):
    """A point, and its rate as a share of that of the first size."""

    point: Point
    share: float


def measure_waiting(run: Run) -> None:
    """The first tasks of queues of different length."""
    weights = dict[int, float]()

    def measure(depth: int) -> Point:
        run.server.empty()
        weights[depth] = _fill(run, depth + run.effort.drained, len(TEXT))
        return _drained(run, SHOAL, depth + run.effort.drained)

    points = _pairs(run, "tasks waiting behind", run.effort.depths, measure)
    run.server.empty()
    small, large = (_fill(run, run.effort.drained, size) for size in SIZES)
    slope = (large - small) / (SIZES[1] - SIZES[0])
    run.report.figures["waiting_bytes_per_prompt_byte"] = slope
    run.report.figures["waiting_bytes"] = small - slope * SIZES[0]
    _table(
        run,
        points,
        weights,
        what="waiting tasks",
        column="waiting behind",
        weight="server bytes per waiting task",
        plot="growth-depth",
        notes=[
            (
                f"The first {run.effort.drained:,} tasks of a queue with that many more behind them, 1 KB prompts. A "
                f"waiting task weighs its prompt and {written(small - slope * SIZES[0])} bytes."
            )
        ],
    )


def measure_finished(run: Run) -> None:
    """The same tasks, with the remains of others before them: results, chunk streams, journals, usage records."""
    weights, most = dict[int, float](), run.effort.finished[-1]

    def measure(ended: int, *, expired: int | None = None) -> Point:
        expired = max(run.effort.drained, round(ended * EXPIRED)) if expired is None else expired
        run.server.empty()
        _begin_queue(run)
        weights[ended] = _remains(run.server.client, ended + expired)
        leave(run.server.client, expired, GONE)
        _fill(run, run.effort.drained, len(TEXT))
        return _drained(run, _beside(ended), run.effort.drained)

    points = _pairs(run, "tasks ended before", run.effort.finished, measure)
    run.say(f"growth: {most:,} tasks ended before, and never more")
    new, beside = measure(most, expired=0), measure(run.effort.finished[0])
    parts = _weigh_parts(run)
    run.report.figures.update(parts)
    _table(
        run,
        points,
        weights,
        what="finished tasks",
        column="ended before",
        weight="server bytes per ended task",
        plot="growth-finished",
        notes=[
            (
                "What an ended task leaves until its time is over: a result of 1 KB and a journal (a day), a replay "
                "stream of 1 KB (an hour), a usage record (90 days). Made by a script, in the form that workers leave."
            ),
            (
                f"On a server in use: a tenth more, at least {run.effort.drained:,}, was there and has expired, so "
                "that there is room for what comes. The commands are the same; with millions of keys and fields each "
                "costs more, because they are no longer in the processor's caches."
            ),
            (
                f"A server that has never had more than its first {most:,} pays for growing beside it: pages of memory "
                "from the kernel, and tables that double, which at this number all do at once. There it took "
                f"{written(new.server_us)} µs of the server's CPU per task, at {written(new.per_s / beside.per_s)} of "
                f"the rate with {run.effort.finished[0]:,}."
            ),
            "Bytes of each: " + ", ".join(f"{name} {written(parts[f'{name}_bytes'])}" for name in PARTS) + ".",
        ],
    )


def _pairs(run: Run, what: str, sizes: Sequence[int], measure: Callable[[int], Point]) -> dict[int, list[Pair]]:
    """Each size beside the first one, measured right before and right after it."""
    points, rounds = defaultdict[int, list[Pair]](list), min(ROUNDS, run.effort.rounds)
    for turn in range(rounds):
        before = measure(sizes[0])
        for size in sizes[1:]:
            if size > MOST_OFTEN and turn >= rounds - 1 > 0:
                continue
            run.say(f"growth, round {turn + 1}: {size:,} {what}")
            point, after = measure(size), measure(sizes[0])
            points[size].append(Pair(point, point.per_s / ((before.per_s + after.per_s) / 2)))
            points[sizes[0]].append(Pair(before, 1.0))
            before = after
    return {size: points[size] for size in sizes}


def _fill(run: Run, count: int, prompt_bytes: int) -> float:
    """Submit so many tasks in bulk; returns the server's bytes for each."""
    before = read(run.server.client)
    flags = ["fill", "--url", run.server.url, "--count", str(count), "--prompt-bytes", str(prompt_bytes)]
    with Program(sys.executable, LOAD, flags) as producer:
        producer.figures(300)
    return between(before, read(run.server.client)).memory / count


def _drained(run: Run, contender: Contender, total: int) -> Point:
    with SHOAL.program("work", run.server, concurrency=100, job="noop") as worker:
        worker.line("READY", 60)
        seen, work = metered_drain(contender, run.server, worker, total=total, until=run.effort.drained)
    done = seen.last.finished - seen.first.finished
    return Point(seen.per_s, seen.cpu_us, work.cpu_us / done, work.commands / done, work.scripts / done)


def _begin_queue(run: Run) -> None:
    """A queue's very first worker looks at all keys once, to list those of some families. Where a million tasks have
    ended that was long ago, when there were few."""
    deadline = time.monotonic() + 10
    with SHOAL.program("work", run.server, concurrency=1, job="noop") as worker:
        worker.line("READY", 60)
        while not all(run.server.client.hexists(name, "") for name in LISTS) and time.monotonic() < deadline:
            time.sleep(0.05)


def _beside(ended: int) -> Contender:
    def finished(client: redis.Redis, count: int) -> int:
        return SHOAL.finished(client, count) - ended

    return dataclasses.replace(SHOAL, finished=finished)


def _remains(client: redis.Redis, count: int, parts: Sequence[str] = PARTS, chars: int = 0) -> float:
    """The server's bytes for what each of so many ended tasks leaves."""
    before = read(client)
    leave(client, count, parts, chars=chars)
    return between(before, read(client)).memory / count if count else 0.0


def _weigh_parts(run: Run) -> dict[str, float]:
    """Bytes of each part of what an ended task leaves, and of chunks by their length."""

    def weight(count: int, parts: Sequence[str], chars: int = 0) -> float:
        run.server.empty()
        return _remains(run.server.client, count, parts, chars)

    found = {f"{name}_bytes": weight(run.effort.drained, (name,)) for name in PARTS}
    small, large = (weight(50, CHUNKS, chars) / 1_000 for chars in CHUNK_CHARS)
    slope = (large - small) / (CHUNK_CHARS[1] - CHUNK_CHARS[0])
    run.server.empty()
    return found | {"chunk_memory_per_char": slope, "chunk_memory_beside": small - slope * CHUNK_CHARS[0]}


def _table(
    run: Run,
    points: dict[int, list[Pair]],
    weights: dict[int, float],
    *,
    what: str,
    column: str,
    weight: str,
    plot: str,
    notes: Sequence[str],
) -> None:
    def middle(depth: int, figure: Callable[[Point], float]) -> float:
        return median([figure(pair.point) for pair in points[depth]])

    depths = list(points)
    rates = [middle(depth, lambda point: point.per_s) for depth in depths]
    worker = [middle(depth, lambda point: point.worker_us) for depth in depths]
    server = [middle(depth, lambda point: point.server_us) for depth in depths]
    commands = [middle(depth, lambda point: point.commands) for depth in depths]
    scripts = [middle(depth, lambda point: point.scripts) for depth in depths]
    shares = [median([pair.share for pair in points[depth]]) for depth in depths]
    rows = [
        (f"{depth:,}", *map(written, figures), written(weights[depth]) if depth else "—")
        for depth, *figures in zip(depths, rates, shares, worker, server, commands, scripts, strict=True)
    ]
    text = f"growth: lowest rate with up to {depths[-1]:,} {what}, as a share of that with {depths[0]:,}"
    run.report.verdicts.append(at_least("growth", text, min(shares), FLAT, ""))
    run.report.tables.append(
        Table(
            section="growth",
            title=f"Growth: {what}",
            columns=[
                column,
                "no-op tasks/s",
                "as a share",
                "worker CPU µs/task",
                "server CPU µs/task",
                "server commands/task",
                "script calls/task",
                weight,
            ],
            rows=rows,
            notes=[
                *notes,
                f"As a share: of the rate with {depths[0]:,}, measured right before and right after. Medians.",
            ],
            plots=[
                Plot(
                    name=plot,
                    title=f"A task costs the same with {depths[0]:,} and with {depths[-1]:,} {what}"
                    if max(worker) <= min(worker) / FLAT and max(server) <= min(server) / FLAT
                    else f"What a task costs, with {depths[0]:,} to {depths[-1]:,} {what}",
                    x_label=what,
                    y_label="CPU µs per task",
                    curves=[
                        Curve(label="worker", x=depths, y=worker),
                        Curve(label="server", x=depths, y=server),
                    ],
                )
            ],
        )
    )
