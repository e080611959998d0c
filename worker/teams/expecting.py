"""Waits for what works for a run, all of it at once: tasks, runs of other teams, people."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from worker.teams import task_ends
from worker.teams.around import Around
from worker.teams.asking import decided
from worker.teams.folding import Folding
from worker.teams.run_events import Event
from worker.teams.run_state import Phase, RunState
from worker.teams.step_fold import Work

DriveRun = Callable[[str], Awaitable[RunState]]
"""Drives a run that belongs to this one to its end."""


class Expecting:
    """What one driver waits for. `hear` is told how each of it has ended; `drive` drives runs of other teams."""

    def __init__(
        self, around: Around, tasks: asyncio.TaskGroup, *, hear: Callable[[Event], None], drive: DriveRun
    ) -> None:
        self._around = around
        self._tasks = tasks
        self._hear = hear
        self._drive = drive
        self._waiting: dict[str, asyncio.Task[None]] = {}
        """What is waited for -> who waits for it."""

    def expect(self, folding: Folding, submitted: set[str]) -> None:
        """Have somebody wait for each task, run and person that the run needs. `submitted`: tasks that are surely known
        to the queue."""
        for name, fold in folding.steps.items():
            if fold.phase.is_final:
                continue
            for work in fold.works.values():
                if work.ended is None and work.run_id:
                    self._wait_for(f"run {work.run_id}", self._run_ends(name, fold.iteration, work))
                elif work.ended is None and work.task_id:
                    is_new = work.task_id in submitted
                    self._wait_for(f"task {work.task_id}", self._task_ends(name, fold.iteration, work, is_new))
            if fold.phase is Phase.WAITING and fold.asked is not None:
                self._wait_for(f"approval {name}", self._person_decides(name, fold.asked.approval_id))
        for child in folding.children.values():
            if not child.phase.is_final and folding.is_run(child):
                self._wait_for(f"run {child.task_id}", self._child_run_ends(child.task_id))
            elif not child.phase.is_final:
                self._wait_for(f"task {child.task_id}", self._child_ends(child.task_id))

    def stop(self) -> None:
        """Wait for nothing any more."""
        for waiting in self._waiting.values():
            waiting.cancel()

    def _wait_for(self, what: str, waiting: Coroutine[Any, Any, None]) -> None:
        if what in self._waiting:
            waiting.close()
        else:
            self._waiting[what] = self._tasks.create_task(waiting, name=what)

    async def _task_ends(self, step: str, iteration: int, work: Work, is_new: bool) -> None:
        result = await task_ends.result_of(self._around.backend, work.task_id, is_new=is_new)
        self._hear(task_ends.ended(step, iteration, work, result))

    async def _child_ends(self, task_id: str) -> None:
        result = await task_ends.result_of(self._around.backend, task_id, is_new=False)
        self._hear(task_ends.child_ended(task_id, result))

    async def _run_ends(self, step: str, iteration: int, work: Work) -> None:
        self._hear(task_ends.run_ended(step, iteration, work, await self._drive(work.run_id)))

    async def _child_run_ends(self, run_id: str) -> None:
        self._hear(task_ends.child_run_ended(await self._drive(run_id)))

    async def _person_decides(self, step: str, approval_id: str) -> None:
        self._hear(await decided(self._around.approvals, step, approval_id))
