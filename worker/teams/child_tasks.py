"""What a delegated task's own worker sees to: that its team's run knows of it, and hears how it ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from queue_backends import InvalidTask, LogRecord, Spent, Task
from worker.persistence import persistently
from worker.teams.delegation import delegated
from worker.teams.marks import Marks
from worker.teams.run_events import ChildEnded, encode_event
from worker.teams.run_keys import events_log
from worker.teams.run_lives import life_s

if TYPE_CHECKING:
    from worker.teams.plan import Plan
    from worker.teams.run_header import RunHeader
    from worker.teams.runs import Runs

MOST_OUTPUT_CHARS = 65_536
"""Of an output in the run's log; the task's result has all of it."""


class RunIsOver(InvalidTask):
    """A delegated task is not begun any more: its run has ended, or somebody has cancelled it."""


class ChildWork:
    """One delegated task, on its own worker."""

    def __init__(self, task: Task, marks: Marks, header: RunHeader, plan: Plan) -> None:
        self._task = task
        self._run = marks.run
        self._keep_s = life_s(plan, header)

    def ended(self, *, output: str, error: str, spent: Spent) -> LogRecord:
        """What is written in one step with the task's result."""
        event = ChildEnded(
            at=time.time(),
            task_id=self._task.id,
            output=output if len(output) <= MOST_OUTPUT_CHARS else f"{output[:MOST_OUTPUT_CHARS]}…",
            error=error,
            usage=spent.usage,
            cost_usd=spent.cost_usd,
        )
        return LogRecord(log=events_log(self._run), id=event.id, value=encode_event(event), keep_s=self._keep_s)


async def begin_child(runs: Runs, task: Task, marks: Marks) -> ChildWork:
    """Before a delegated task begins: its run knows of it from now on. Raises `RunIsOver`."""
    await persistently(lambda: runs.append(marks.run, delegated(task, marks)), "note a delegated task")
    run = await persistently(lambda: runs.read(marks.run), "read a delegated task's run")
    if run.state.phase.is_final or run.state.cancel_requested:
        why = "was cancelled" if run.state.cancel_requested else "has ended"
        raise RunIsOver(f"run {marks.run} {why}: the task that it delegated is not begun any more")
    return ChildWork(task, marks, run.header, run.plan)
