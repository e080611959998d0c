"""A piece of a role's work, as memories know it: several tasks may do it, one after another."""

from __future__ import annotations

from msgspec import Struct

from queue_backends import Task
from worker.teams.marks import Marks

REMEMBERING = frozenset({"step", "delegated", "subtask"})
"""Purposes of tasks that a role remembers something for."""
GOING_ON = frozenset({"repair", "summary"})
"""Purposes of tasks that answer anew what another of these was asked. All others are about an answer."""


class Work(Struct, frozen=True, kw_only=True):
    """What a role was asked once."""

    id: str
    """Of a step: the same for all its tries and repairs, another for each iteration. Else the task's."""
    task: Task
    marks: Marks

    @property
    def asked(self) -> str:
        """What the role was asked; of a repair, what its step was."""
        if self.marks.purpose in GOING_ON and self.task.history:
            first = self.task.history[0].get("content", "")
            return first if isinstance(first, str) else ""
        return self.task.prompt


def work_of(task: Task, marks: Marks) -> Work:
    """Which work a task does. The scheduler's tasks have keys that end with try and purpose."""
    key = task.idempotency_key
    is_step = key.startswith(f"team:{marks.run}:") and not marks.depth
    return Work(id=key.rsplit(":", 2)[0] if is_step else task.id, task=task, marks=marks)
