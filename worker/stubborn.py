"""Finds runs that were told to end and do not, because somebody's code swallows the cancellation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from worker.task_run import TaskRun

LOOK_EVERY_S = 1.0
HEED_WITHIN_S = 5.0
"""So long a run may clean up after it was told to end."""

log = structlog.get_logger(__name__)


async def find_stubborn(runs: Callable[[], Iterable[TaskRun]], give_up: Callable[[TaskRun], None]) -> None:
    """Look at the runs until cancelled. Those that do not end are told once more, and `give_up` is called for those
    that still go on when they are looked at again; what they hang in is logged by name.

    Telling them again is for cancellations that got lost, not refused: a library that catches the one that comes just
    as its wait is over, as `asyncio.wait_for` does before Python 3.12, goes on as if nothing had been said.
    """
    told_at: dict[TaskRun, float] = {}
    told_again: set[TaskRun] = set()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        now = time.monotonic()
        told_at = {run: told_at.get(run, now) for run in runs() if run.was_stopped() and run.is_working}
        late = {run for run, since in told_at.items() if now - since >= HEED_WITHIN_S}
        for run in late - told_again:
            _tell_again(run)
        for run in late & told_again:
            _say_what_it_hangs_in(run)
            give_up(run)
        told_again = late


def _tell_again(run: TaskRun) -> None:
    for part in _parts(run):
        part.cancel()
    if run.job is not None:
        run.job.cancel()


def _parts(run: TaskRun) -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().endswith(f" of {run.task.id}")]


def _say_what_it_hangs_in(run: TaskRun) -> None:
    log.error(
        "a run does not end though it was told to: its slot is freed, and what it still does is ignored",
        task=run.task.id,
        reason=str(run.stop_reason),
        hangs_in=[part.get_name() for part in _parts(run)] or ["the provider"],
    )
