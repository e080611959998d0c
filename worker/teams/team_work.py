"""What a worker needs for the work of teams, beside what it has anyway."""

from __future__ import annotations

from msgspec import Struct

from queue_backends import TaskQueue
from worker.teams.child_ends import ChildEnds
from worker.teams.memory.memories import Memories
from worker.teams.role_tools import RoleTools
from worker.teams.routed_queues import RoutedQueues
from worker.teams.runs import Runs
from worker.teams.waits import Waits


class TeamWork(Struct, frozen=True, kw_only=True):
    """Shared by all runs of a worker."""

    runs: Runs
    queue: TaskQueue
    """The worker's own."""
    tools: RoleTools
    routes: RoutedQueues
    waits: Waits
    ends: ChildEnds
    memories: Memories
    keeps_journal: bool = True
    """Without one, a run that is put down begins anew: it waits where it is."""
    looks_up: bool = True
    """Whether the queue can say that there is no task of an id."""
