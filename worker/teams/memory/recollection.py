"""What a role remembers when a task of it begins, and how it is put before the task."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from queue_backends import Task
from queue_backends.messages import JsonObject


class Recollection(Struct, frozen=True, kw_only=True):
    """Something to begin with. A run that is resumed begins with the same, whatever was remembered since."""

    history: tuple[JsonObject, ...] = ()
    """Messages that come before the task's own."""
    preface: str = ""
    """Text that comes before its prompt."""

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.history or self.preface)

    def before(self, task: Task) -> Task:
        """The task, with this before it."""
        return replace(task, history=(*self.history, *task.history), prompt=self.preface + task.prompt)


NOTHING = Recollection()
