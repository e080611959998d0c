"""Tasks that wait for each other: none of them would ever end, and each is put down, so nobody would see it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from queue_backends import TaskQueue
from worker.teams.waits import Waits

MOST_SEEN = 500
"""Tasks that are looked at, before it is taken that there is no circle."""


async def waiting_for(targets: Collection[str], asked: Sequence[str], *, waits: Waits, queue: TaskQueue) -> list[str]:
    """Those of the tasks that wait, directly or through others, for one of the targets. Who has ended waits for
    nothing."""
    return [task_id for task_id in asked if await _reaches(targets, task_id, waits, queue)]


async def _reaches(targets: Collection[str], task_id: str, waits: Waits, queue: TaskQueue) -> bool:
    seen: set[str] = set()
    ahead = [task_id]
    while ahead and len(seen) < MOST_SEEN:
        if any(each in targets for each in ahead):
            return True
        seen.update(ahead)
        results = await queue.results(ahead)
        pending = [each for each, result in zip(ahead, results, strict=True) if result is None]
        found = [wanted for each in pending for wait in (await waits.of(each)).values() for wanted in wait.ids]
        ahead = [each for each in dict.fromkeys(found) if each not in seen]
    return False
