"""Whether a long queue, or much that has ended, slows a worker down, and what it weighs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import redis

from tests.benchmarks.figures import median, written
from tests.benchmarks.meter import between, read
from tests.benchmarks.plots import Curve, Plot
from tests.benchmarks.remains import CHUNKS, PARTS, expire, leave
from tests.benchmarks.report import Table
from tests.benchmarks.run import Run
from tests.benchmarks.servers import valkey
from tests.benchmarks.standing import Point, Standing, fill
from tests.benchmarks.targets import at_least

FLAT = 0.8
"""A rate that is this share of the first one's still counts as the same: rounds of one figure differ by as much."""
ROUNDS = 3
MANY = 100_000
"""From this size on as many rounds as of anything else: there the rates lie apart, if anywhere."""
EXPIRED = 0.1
"""What has expired before, as a part of what is there; at least what a drain leaves."""
CHUNK_CHARS = (60, 1_000)
SIZES = (100, 4_096)
"""Prompt bytes, for what a waiting task weighs beside its prompt."""


class Pair(NamedTuple):
    """A point, and its rate as a share of that of the first size."""

    point: Point
    share: float


def measure_waiting(run: Run) -> None:
    """The first tasks of queues of different length."""
    weights, drained = dict[int, float](), run.effort.drained

    @contextmanager
    def standing(depth: int) -> Iterator[Standing]:
        with valkey() as server:
            stands = Standing(server, drained=drained, waiting=depth)
            if depth >= drained:
                weights[depth] = stands.waiting_bytes
            yield stands

    with standing(run.effort.depths[0]) as baseline:
        points = _pairs(run, "tasks waiting behind", run.effort.depths, standing, baseline)
    small, large = (_weigh_waiting(run, size) for size in SIZES)
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
                f"The first {drained:,} tasks of a queue with that many more behind them, 1 KB prompts. A waiting task "
                f"weighs {written(slope)} times its prompt and {written(small - slope * SIZES[0])} bytes."
            )
        ],
    )


def measure_finished(run: Run) -> None:
    """The same tasks, with the remains of others before them: results, chunk streams, journals, usage records."""
    weights, drained, sizes = dict[int, float](), run.effort.drained, run.effort.finished

    @contextmanager
    def standing(ended: int) -> Iterator[Standing]:
        with valkey() as server:
            stands, expired = Standing(server, drained=drained), max(drained, round(ended * EXPIRED))
            weights[ended] = _remains(server.client, ended + expired)
            expire(server.client, most=expired)
            yield stands

    with standing(sizes[0]) as baseline:
        points = _pairs(run, "tasks ended before", sizes, standing, baseline)
        new = _with_nothing_expired(run, sizes[-1], baseline)
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
                f"On a server in use: a tenth more, at least {drained:,}, was there and has expired, and later as much "
                "expires as comes."
            ),
            (
                f"While a server gets its first {sizes[-1]:,} it pays for growing, whatever has ended before: pages of "
                "memory from the kernel, and tables that double, which at this number all do at once. There a task "
                f"took {written(new.point.server_us)} µs of the server's CPU, at {written(new.share)} of the rate with "
                f"{sizes[0]:,}."
            ),
            "Bytes of each: " + ", ".join(f"{name} {written(parts[f'{name}_bytes'])}" for name in PARTS) + ".",
        ],
    )


def _pairs(
    run: Run,
    what: str,
    sizes: Sequence[int],
    standing: Callable[[int], AbstractContextManager[Standing]],
    baseline: Standing,
) -> dict[int, list[Pair]]:
    """Each size beside the first one, on two servers in turn. Each server's first drain does not count: it grows."""
    points: dict[int, list[Pair]] = {size: [] for size in sizes}
    baseline.drain()
    for size in sizes[1:]:
        run.say(f"growth: {size:,} {what}")
        with standing(size) as stands:
            stands.drain()
            for turn in range(run.effort.rounds if size >= MANY else min(ROUNDS, run.effort.rounds)):
                pair, other = _pair(stands, baseline, is_first=turn % 2 == 0)
                points[size].append(pair)
                points[sizes[0]].append(other)
    return points


def _pair(stands: Standing, baseline: Standing, *, is_first: bool = True) -> tuple[Pair, Pair]:
    one = stands.drain() if is_first else None
    other = baseline.drain()
    one = one or stands.drain()
    return Pair(one, one.per_s / other.per_s), Pair(other, 1.0)


def _with_nothing_expired(run: Run, ended: int, baseline: Standing) -> Pair:
    """On a server that has never had more."""
    run.say(f"growth: {ended:,} tasks ended before, and never more")
    with valkey() as server:
        stands = Standing(server, drained=run.effort.drained)
        leave(server.client, ended)
        return _pair(stands, baseline)[0]


def _weigh_waiting(run: Run, prompt_bytes: int) -> float:
    run.server.empty()
    weight = fill(run.server, run.effort.drained, prompt_bytes)
    run.server.empty()
    return weight


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
        (f"{depth:,}", *map(written, figures), written(weights.get(depth) if depth else None))
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
                f"As a share: of the rate with {depths[0]:,}, measured in turn on a server beside it. Medians.",
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
