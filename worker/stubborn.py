"""Finds runs that were told to end and do not, because somebody's code swallows the cancellation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import structlog

from worker.task_run import TaskRun

LOOK_EVERY_S = 1.0
HEED_WITHIN_S = 5.0
"""So long a run may clean up after it was told to end."""

log = structlog.get_logger(__name__)


async def find_stubborn(runs: Callable[[], Iterable[TaskRun]], give_up: Callable[[TaskRun], None]) -> None:
    """Look at the runs until cancelled, and `give_up` those that do not end.

    What they hang in is logged by name and is told to end once more.
    """
    told_at: dict[TaskRun, float] = {}
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        now = time.monotonic()
        told_at = {run: told_at.get(run, now) for run in runs() if run.was_stopped() and run.is_working}
        for run in [run for run, since in told_at.items() if now - since >= HEED_WITHIN_S]:
            _cancel_again(run)
            give_up(run)


def _cancel_again(run: TaskRun) -> None:
    parts = [task for task in asyncio.all_tasks() if task.get_name().endswith(f" of {run.task.id}")]
    for part in parts:
        part.cancel()
    log.error(
        "a run does not end though it was told to: its slot is freed, and what it still does is ignored",
        task=run.task.id,
        reason=str(run.stop_reason),
        hangs_in=[part.get_name() for part in parts] or ["the provider"],
    )
