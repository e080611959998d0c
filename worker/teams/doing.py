"""Carries out what was decided for a run. Each of it may be done again by whoever comes next, and happens once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from functools import partial

from queue_backends import InvalidTask, QueueFull
from worker.persistence import persistently
from worker.teams.actions import Action, AskPerson, Note, Stop, Submit
from worker.teams.around import Around
from worker.teams.asking import ask
from worker.teams.errors import RunEnded, TeamError
from worker.teams.folding import Folding
from worker.teams.run_events import Event, TaskEnded, TaskSubmitted
from worker.teams.step_tasks import sub_run_id, sub_run_input, task_of
from worker.teams.sub_runs import start_within

GIVE_UP_S = 30.0
"""What was told to end is waited for so long."""
FULL_AGAIN_S = 1.0
"""When the queue is full, a task is submitted again after so long."""


class Doing:
    """What one driver does for one run."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self.submitted: set[str] = set()
        """Tasks that this driver has submitted itself."""
        self._told_to_stop: dict[str, float] = {}
        """Tasks and runs -> when they were told."""
        self._full_until = 0.0

    async def perform(self, folding: Folding, actions: Sequence[Action], now: float) -> list[Event]:
        """Do it all; returns what has happened by that."""
        events: list[Event] = []
        for action in actions:
            match action:
                case Note(events=noted):
                    events += noted
                case Submit():
                    events += await self._submit(folding, action, now)
                case AskPerson(step=step):
                    events.append(await self._ask(folding, step))
                case Stop(steps=steps):
                    await self._stop(folding, steps, now)
        return events

    def gives_up(self, folding: Folding, now: float) -> bool:
        """Whether all that works for the run was told to end, and has had its time. Runs of other teams have their own
        patience."""
        tasks, runs = open_works(folding)
        told = [self._told_to_stop.get(task_id, now) for task_id in tasks]
        return bool(told) and not runs and now - max(told) > GIVE_UP_S

    def next_moments(self) -> list[float]:
        """When something is to be done again. Unix seconds."""
        return [self._full_until, *(told + GIVE_UP_S for told in self._told_to_stop.values())]

    async def _ask(self, folding: Folding, step: str) -> Event:
        return await persistently(lambda: ask(self._around.approvals, folding, step), "ask a person")

    async def _submit(self, folding: Folding, wanted: Submit, now: float) -> list[Event]:
        role = folding.team.role(wanted.role)
        try:
            if role is not None and role.team and wanted.purpose == "step":
                return [await self._start_run(folding, role.team, wanted)]
            if self._full_until - FULL_AGAIN_S <= now < self._full_until:  # else the clock was put back
                return []
            task = task_of(folding, wanted)
            task_id = await persistently(lambda: self._around.backend.queue.submit(task), "submit a run's task")
        except QueueFull:
            self._full_until = now + FULL_AGAIN_S
            return []
        except (TeamError, InvalidTask) as error:
            return [_failed(wanted, str(error), now)]
        self.submitted.add(task_id)
        return [_submitted(wanted, now, task_id=task_id)]

    async def _start_run(self, folding: Folding, team: str, wanted: Submit) -> Event:
        step = wanted.step
        given, run_id = sub_run_input(folding, folding.team.step(step)), sub_run_id(folding.header.id, wanted)
        await persistently(
            lambda: start_within(self._around.runs, folding, step, team, given, run_id), "start the run of a step"
        )
        return _submitted(wanted, time.time(), run_id=run_id)

    async def _stop(self, folding: Folding, steps: tuple[str, ...], now: float) -> None:
        """Tell all that works for these steps (for all, if there are none) to end, once each."""
        tasks, runs = open_works(folding, steps)
        fresh = [each for each in tasks if each not in self._told_to_stop]
        if fresh:
            await persistently(lambda: self._around.backend.queue.cancel(fresh), "cancel a run's tasks")
        reason = f"run {folding.header.id} needs it no more"
        for run_id in [each for each in runs if each not in self._told_to_stop]:
            await persistently(partial(self._cancel_run, run_id, reason), "cancel the run of a step")
        for each in (*tasks, *runs):
            self._told_to_stop.setdefault(each, now)

    async def _cancel_run(self, run_id: str, reason: str) -> None:
        with contextlib.suppress(RunEnded):
            await self._around.runs.cancel(run_id, reason=reason)


def open_works(folding: Folding, steps: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """The tasks and the runs that work for these steps (for all, if there are none) at this moment."""
    tasks: list[str] = []
    runs: list[str] = []
    for child in folding.children.values():
        if not child.phase.is_final and (not steps or child.step in steps):
            (runs if folding.is_run(child) else tasks).append(child.task_id)
    for name, fold in folding.steps.items():
        for work in fold.works.values():
            if work.ended is None and not fold.phase.is_final and (not steps or name in steps):
                (runs if work.run_id else tasks).append(work.run_id or work.task_id)
    return tasks, runs


def _submitted(wanted: Submit, now: float, *, task_id: str = "", run_id: str = "") -> TaskSubmitted:
    return TaskSubmitted(
        at=now,
        step=wanted.step,
        iteration=wanted.iteration,
        attempt=wanted.attempt,
        purpose=wanted.purpose,
        task_id=task_id,
        run_id=run_id,
    )


def _failed(wanted: Submit, error: str, now: float) -> TaskEnded:
    return TaskEnded(
        at=now,
        step=wanted.step,
        iteration=wanted.iteration,
        attempt=wanted.attempt,
        purpose=wanted.purpose,
        error=error,
    )
