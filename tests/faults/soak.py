"""One run: a stage, a workload, a schedule of faults; then quiet, then the evidence and its check."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from msgspec import Struct

from tests.faults.brokers.engines import ENGINES
from tests.faults.checker import check
from tests.faults.checks.findings import Finding
from tests.faults.diaries import Injected, read_calls, read_effects
from tests.faults.evidence import Evidence, read_alarms
from tests.faults.injector import Injector
from tests.faults.mixture import draw_brisk
from tests.faults.reading import read_told, settled
from tests.faults.schedule import Mix, Schedule, draw
from tests.faults.stage import Stage, stage
from tests.faults.workload import Workload

SETTLE_S = 90.0
"""After the last fault, so long until every accepted task must have its result."""
SAY_EVERY_S = 30.0
QUIET_AT_END = 0.05
"""The last part of the time is without new tasks; faults go on until the last task is submitted."""


class Options(Struct, frozen=True, kw_only=True):
    """What a run is made of."""

    seed: int
    tasks: int
    engine: str = "valkey"
    """One of `ENGINES`."""
    duration_s: float
    """Over which tasks are submitted and faults injected."""
    mix: Mix
    """What the engine cannot be put through is left out."""
    workers: int = 4
    concurrency: int = 20
    lease_s: float = 2.0
    longest_s: float = math.inf
    """Tasks that take longer by themselves are left out."""
    command: str = ""
    """How to do it again."""


class Outcome(Struct, kw_only=True):
    """What came of a run."""

    options: Options
    schedule: Schedule
    evidence: Evidence
    findings: list[Finding]
    figures: dict[str, int]
    harmed: dict[str, set[str]]
    took_s: float

    def __str__(self) -> str:
        """Everything that somebody needs who wants to know why a run failed."""
        lines = [f"{len(self.findings)} broken promises in {self.took_s:.0f} s; again: {self.options.command}"]
        lines += [f"  {finding}" for finding in self.findings[:40]]
        lines += ["injected:"] + [
            f"  {fault.at:.3f} to {fault.until:.3f}  {fault.target}: {fault.kind}" for fault in self.evidence.faults
        ]
        lines += [f"figures: {dict(sorted(self.figures.items()))}", "the schedule:", str(self.schedule)]
        return "\n".join(lines)


async def soak(options: Options, folder: Path, *, say: Callable[[str], None] | None = None) -> Outcome:
    """Run once in `folder`, which keeps logs, diaries and the workers' configurations; `say` hears how it goes."""
    started = time.monotonic()
    engine = ENGINES[options.engine]
    schedule = draw(
        options.seed,
        {kind: count for kind, count in options.mix.items() if kind in engine.kinds},
        duration_s=options.duration_s * (1 - QUIET_AT_END),
        slots=options.workers,
        lease_s=options.lease_s,
    )
    async with stage(
        folder, engine, workers=options.workers, concurrency=options.concurrency, lease_s=options.lease_s
    ) as running:
        evidence = await _perform(running, options, schedule, say or (lambda _: None))
    verdict = check(evidence)
    return Outcome(
        options=options,
        schedule=schedule,
        evidence=evidence,
        findings=verdict.findings,
        figures=dict(verdict.figures),
        harmed=dict(verdict.harmed),
        took_s=time.monotonic() - started,
    )


async def _perform(running: Stage, options: Options, schedule: Schedule, say: Callable[[str], None]) -> Evidence:
    errands = draw_brisk(options.seed, options.tasks, options.longest_s)
    workload = Workload(running, errands, duration_s=options.duration_s)
    injector = Injector(running, schedule)
    async with _watched(running), _told(say, lambda: f"{len(workload.submissions)} tasks, {len(injector.done)} faults"):
        async with asyncio.TaskGroup() as group:
            group.create_task(injector.run(), name="injector")
            group.create_task(workload.run(), name="workload")
        ids = [submission.task_id for submission in workload.submissions if submission.ids]
        say(f"{len(ids)} tasks were accepted, waiting for the last results")
        await settled(running.quiet_url, running.options, ids, within_s=SETTLE_S)
    await running.stop_workers()
    return await _gathered(running, workload, injector.done)


@contextlib.asynccontextmanager
async def _watched(running: Stage) -> AsyncIterator[None]:
    """Meanwhile, start workers again that end by themselves."""
    watching = [asyncio.create_task(slot.watch(), name=f"watch slot {slot.number}") for slot in running.slots]
    try:
        yield
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)


@contextlib.asynccontextmanager
async def _told(say: Callable[[str], None], progress: Callable[[], str]) -> AsyncIterator[None]:
    """Meanwhile, say now and then how far it is."""

    async def tell() -> None:
        while True:
            await asyncio.sleep(SAY_EVERY_S)
            say(progress())

    telling = asyncio.create_task(tell(), name="progress")
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait([telling])


async def _gathered(running: Stage, workload: Workload, faults: list[Injected]) -> Evidence:
    ids = [submission.task_id for submission in workload.submissions if submission.ids]
    told = await read_told(running.quiet_url, running.options, ids)
    inside = await asyncio.to_thread(running.broker.look_inside, running.queue, told)
    return Evidence(
        queue=running.queue,
        lease_s=running.options.lease_s,
        told=told,
        lists=inside.lists,
        lifetimes=inside.lifetimes,
        structure=running.broker.structure,
        takes_back=running.broker.takes_back,
        left_over=inside.left_over,
        told_otherwise=inside.told_otherwise,
        submissions=workload.submissions,
        calls=read_calls(running.calls_diary),
        effects=read_effects(*running.effect_diaries),
        faults=faults,
        views=workload.views,
        announced=workload.announced,
        deaths=[death for slot in running.slots for death in slot.deaths],
        alarms=read_alarms(running.folder),
    )
