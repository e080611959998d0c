"""The capacity model against simulations of whole fleets, as large as this machine carries."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import redis
from msgspec.structs import replace

from tests.benchmarks.contenders import SHOAL
from tests.benchmarks.figures import written
from tests.benchmarks.meter import between, read
from tests.benchmarks.programs import DriverFailed, Program
from tests.benchmarks.report import Table
from tests.benchmarks.rows import capacity_sizes
from tests.benchmarks.rows.watching import QUEUE, Crew, pending
from tests.benchmarks.run import Run
from tests.benchmarks.targets import at_most
from worker.capacity import Figures, Limits, Load, measured, needs

LOAD = "tests.benchmarks.drivers.load"
PROMPT_BYTES = 1_024
CHARS = 60
WINDOW_S = 15.0
FULL_WITHIN_S = 120.0
WORST = 0.5
"""An error of the model beyond which it is of no use for planning."""
EVERYTHING = Limits(slots=1e9, worker_cpu=1e9, worker_mib=1e9, server_cpu=1e9)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One fleet at work."""

    runs: int
    processes: int
    waiting: int
    every_s: float
    """Between two pieces of a run."""
    pieces: int
    """Of a run on average: from half to one and a half of it."""

    @property
    def name(self) -> str:
        return f"{self.runs:,} runs in {self.processes} processes, {self.waiting:,} waiting"

    @property
    def task_s(self) -> float:
        return self.every_s * (self.pieces + 0.5)

    @property
    def told(self) -> str:
        told = {"pieces": self.pieces, "every_s": self.every_s, "chars": CHARS, "spread": 1}
        return json.dumps(told).ljust(PROMPT_BYTES)


def measure(run: Run) -> None:
    """Simulate, predict, compare; then what the model says of sizes that no machine here could carry."""
    figures, _ = measured()
    runs, processes, waiting = run.effort.simulated
    scenes = [
        Scene(runs=runs, processes=processes, waiting=waiting, every_s=5.0, pieces=6),
        Scene(runs=runs // 20, processes=1, waiting=waiting // 10, every_s=0.1, pieces=100),
    ]
    found = {scene.name: _compared(run, scene, figures) for scene in scenes}
    rows, errors = [], []
    for name, (predicted, seen) in found.items():
        for what, value in predicted.items():
            error = value / seen[what] - 1
            errors.append(abs(error))
            rows.append((f"{name}: {what}", written(value), written(seen[what]), f"{error * 100:+.0f} %"))
    run.report.verdicts.append(
        at_most("capacity", "capacity model: largest error against a simulated fleet", max(errors), WORST, "")
    )
    run.report.tables.append(
        Table(
            section="capacity",
            title="Capacity: the model against simulated fleets",
            columns=["", "predicted", "measured", "error"],
            rows=rows,
            notes=[
                (
                    f"A provider inside the workers' processes says {CHARS} characters every 5 s (the first fleet) "
                    f"or every 0.1 s (the second); looked at for {WINDOW_S:g} s with all slots taken. Prompts of 1 KB, "
                    "nobody listens. Predicted from the costs in the tables of growth, which were measured with one "
                    "process and by themselves."
                )
            ],
        )
    )
    capacity_sizes.tabulate(run, figures)


def _compared(run: Run, scene: Scene, figures: Figures) -> tuple[dict[str, float], dict[str, float]]:
    run.say(f"capacity: {scene.name}")
    server = run.server
    server.empty()
    empty = read(server.client).memory
    server.client.set(f"{QUEUE}:paused", "1")
    flags = ["steady", "--url", server.url, "--told", scene.told]
    with Program(sys.executable, LOAD, [*flags, "--count", str(scene.runs + scene.waiting)]) as producer:
        producer.figures(300)
    with ExitStack() as stack:
        options: dict[str, object] = {"concurrency": scene.runs // scene.processes, "job": "steady"}
        workers = [stack.enter_context(SHOAL.program("work", server, **options)) for _ in range(scene.processes)]
        for worker in workers:
            worker.line("READY", 60)
        server.client.delete(f"{QUEUE}:paused")
        server.client.publish(f"{QUEUE}:control", "resume")
        _await_full(server.client, scene.runs, workers)
        time.sleep(1.2 * scene.task_s)  # by then runs begin and end at all times, not together
        crew = Crew(workers)
        ended, spent, before = SHOAL.finished(server.client, 0), crew.cpu_s(), read(server.client)
        time.sleep(WINDOW_S)
        after, spent = read(server.client), crew.cpu_s() - spent
        ended_after = SHOAL.finished(server.client, 0)
        resident_mib = sum(worker.resident_kib() for worker in workers) / 1024
        left = int(server.client.xlen(QUEUE)) - scene.runs
    work = between(before, after)
    seen = {
        "tasks/s": (ended_after - ended) / work.seconds,
        "chunks/s": (work.calls["xadd"] - (ended_after - ended)) / work.seconds,
        "server commands/s": work.commands / work.seconds,
        "Mbit/s to the server": work.bytes_in * 8e-6 / work.seconds,
        "Mbit/s from it": work.bytes_out * 8e-6 / work.seconds,
        "server CPU % of a core": work.cpu_s / work.seconds * 100,
        "worker CPU % of a core": spent / work.seconds * 100,
        "worker memory MiB": resident_mib,
        "server memory MiB": (after.memory - empty) / 2**20,
    }
    return _predicted(scene, figures, waiting=left, ended=ended_after), seen


def _await_full(client: redis.Redis, runs: int, workers: Sequence[Program]) -> None:
    deadline = time.monotonic() + FULL_WITHIN_S
    while (running := pending(client)) < 0.98 * runs:
        if time.monotonic() > deadline or not Crew(workers).alive():
            raise DriverFailed(f"{running:,} of {runs:,} runs have begun")
        time.sleep(0.1)


def _predicted(scene: Scene, figures: Figures, *, waiting: int, ended: int) -> dict[str, float]:
    """By the very model that `shoal capacity` has; what is kept for a day was collected for a minute here."""
    kept_s = ended * scene.task_s / scene.runs
    load = Load(
        tasks=scene.runs,
        task_s=scene.task_s,
        chunks_per_s=scene.pieces / scene.task_s,
        chunk_chars=CHARS,
        prompt_bytes=PROMPT_BYTES,
        calls=1,
        waiting=waiting,
        submitted=False,
        listeners=0,
        result_retention_s=kept_s,
        chunk_retention_s=kept_s,
        usage_retention_s=kept_s,
    )
    within = replace(EVERYTHING, slots=scene.runs / scene.processes)
    need = needs(load, replace(figures, streaming_run_kib=figures.spoken_run_kib), within)
    return {
        "tasks/s": need.tasks_per_s,
        "chunks/s": need.chunks_per_s,
        "server commands/s": need.commands_per_s,
        "Mbit/s to the server": need.mbit_in,
        "Mbit/s from it": need.mbit_out,
        "server CPU % of a core": need.server_cpu * 100,
        "worker CPU % of a core": need.worker_cpu * 100,
        "worker memory MiB": need.worker_gib * 1024,
        "server memory MiB": need.server_gib * 1024,
    }
