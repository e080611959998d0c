"""Wakes who waits for a task that has ended: the run that delegated it, and those who follow its team's run.

It is told after the task's outcome is written. What is lost of it, with a worker that dies at that moment, costs time
alone: who waits looks again by itself.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

import structlog

from queue_backends import QueueError, Task, TaskQueue
from worker.teams.marks import PARENT, RUN, marks_of
from worker.teams.runs import Runs
from worker.teams.waits import Waits

MOST_WAITING = 10_000
"""Parents that are still to be woken; beyond that the oldest ones look by themselves."""

log = structlog.get_logger(__name__)


class ChildEnds:
    """Wakes the parents of tasks of one worker."""

    def __init__(self, queue: TaskQueue, runs: Runs, waits: Waits) -> None:
        self._queue = queue
        self._runs = runs
        self._waits = waits
        self._ended: OrderedDict[str, str] = OrderedDict()
        """Parent -> its team's run, empty outside teams."""
        self._news = asyncio.Event()

    def ended(self, task: Task) -> None:
        """A task that was delegated has ended, and its result is there."""
        marks = marks_of(task.meta)
        self._ended[task.meta[PARENT]] = "" if marks is None else task.meta.get(RUN, "")
        while len(self._ended) > MOST_WAITING:
            self._ended.popitem(last=False)
        self._news.set()

    async def run(self) -> None:
        """Endless."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._ended:
                parent, run_id = self._ended.popitem(last=False)
                try:
                    await self._tell(parent, run_id)
                except QueueError as error:
                    log.info("who waits for a delegated task looks by himself", task=parent, error=str(error))
                except Exception:  # such as a record that somebody has written by hand: the others go on
                    log.exception("who waits for a delegated task is not woken", task=parent)

    async def _tell(self, parent: str, run_id: str) -> None:
        if run_id:
            await self._runs.wakes.wake(run_id)
        wanted = list({each for wait in (await self._waits.of(parent)).values() for each in wait.ids})
        if not wanted:
            return
        results = await self._queue.results(wanted)
        ended = {each for each, result in zip(wanted, results, strict=True) if result is not None}
        if await self._waits.is_over(parent, ended):
            await self._queue.wake([parent])
