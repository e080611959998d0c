"""Results of tasks that a run has made for others: taken as they come, and waited for without a worker."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from queue_backends import QueueError, TaskResult, TaskState, WaitTimeout
from worker.parking import Parked
from worker.teams.run_events import Collected as CollectedEvent
from worker.teams.run_state import ChildState

if TYPE_CHECKING:
    from worker.teams.delegation import Children, Known

LOOK_AGAIN_S = 30.0
"""A parked run looks again after so long, in case that the one who should wake it has died."""
LOOK_ELSEWHERE_S = (1.0, 10.0)
"""Nobody wakes a run for what ends in another queue, or was delegated by another: it looks after a second, then after
as long as it has waited."""
NOT_YOURS = "[error] this is no task of this run"
NO_TASK = "[error] there is no task of this id"
CIRCULAR = "[error] it waits for this task itself: neither would ever end"


class Collected(Struct, frozen=True, kw_only=True):
    """What was found when the wait was over."""

    completed: dict[str, str]
    """Task -> its output; `[error] ` and the reason, if it failed."""
    pending: list[str]


async def collect(children: Children, task_ids: Sequence[str], call: str, *, timeout_s: float) -> Collected:
    """The results of tasks; see `Children.collect`. Its time counts from when the call was first made."""
    work, task = children.work, children.task
    wait = await work.waits.begin(task.id, call, task_ids)
    until = wait.since + timeout_s
    known = await children.known()
    collection = _Collection(children, known, task_ids)
    found = await collection.without_hopeless(await collection.look())
    if found.pending and (left_s := until - time.time()) > 0:
        if work.keeps_journal:
            raise Parked(
                min(until, time.time() + collection.look_again_s(wait.since)),
                _waits_for(len(found.pending)),
                is_ready=collection.is_complete,
            )
        found = await collection.wait(found, left_s)
    await work.waits.end(task.id, call)
    if children.marks is not None and (mine := [each for each in found.completed if known.is_child(each, task.id)]):
        event = CollectedEvent(at=time.time(), call_id=f"{task.id}:{call}:{len(mine)}", task_ids=tuple(mine))
        await work.runs.append(children.marks.run, event)
    return found


class _Collection:
    """The tasks that one call asks for."""

    def __init__(self, children: Children, known: Known, task_ids: Sequence[str]) -> None:
        self._children = children
        self._known = known.roles
        self._task_ids = task_ids
        is_fenced = bool(children.task.tenant)
        self._foreign = [each for each in task_ids if is_fenced and each not in known.roles]
        self._asked = [each for each in task_ids if each not in self._foreign]
        routes = children.work.routes.roles
        self._elsewhere = [each for each in self._asked if self._known.get(each, "") in routes]
        self._others = [each for each in self._asked if not known.is_child(each, children.task.id)]
        """Not made by this task. A circle of waiting has one of them somewhere: children alone make a tree."""

    def look_again_s(self, since: float) -> float:
        """When to look again, if nobody wakes the run."""
        if not self._elsewhere and not self._others:
            return LOOK_AGAIN_S
        shortest, longest = LOOK_ELSEWHERE_S
        return min(max(shortest, time.time() - since), longest)

    async def look(self) -> Collected:
        """What is there now."""
        results = await self._results()
        completed = dict.fromkeys(self._foreign, NOT_YOURS)
        completed |= {task_id: _text(result) for task_id, result in results.items() if result is not None}
        if missing := [task_id for task_id, result in results.items() if result is None]:
            states = (await self._children.known()).states
            completed |= {each: _told(states[each]) for each in missing if each in states and _has_ended(states[each])}
        return Collected(
            completed={task_id: completed[task_id] for task_id in self._task_ids if task_id in completed},
            pending=[task_id for task_id in self._task_ids if task_id not in completed],
        )

    async def without_hopeless(self, found: Collected) -> Collected:
        """Of what is pending, tell at once what will never be there: ids of no task, and of those who wait for us."""
        pending = [each for each in self._others if each in found.pending]
        if not pending:
            return found
        told = dict.fromkeys(await self._unknown(pending), NO_TASK) | dict.fromkeys(
            await self._children.waiting_for_us(pending), CIRCULAR
        )
        completed = found.completed | told
        return Collected(
            completed={task_id: completed[task_id] for task_id in self._task_ids if task_id in completed},
            pending=[task_id for task_id in found.pending if task_id not in told],
        )

    async def _unknown(self, pending: Sequence[str]) -> list[str]:
        """A model may make ids up."""
        work, strange = self._children.work, [each for each in pending if each not in self._known]
        statuses = await work.queue.status(strange) if strange and work.looks_up else []
        return [each for each, status in zip(strange, statuses, strict=False) if status.state is TaskState.UNKNOWN]

    async def is_complete(self) -> bool:
        """Whether nothing is missing."""
        return not (await self.look()).pending

    async def wait(self, found: Collected, left_s: float) -> Collected:
        """Wait here, for runs that cannot be put down."""

        async def wait_for(task_id: str) -> None:
            role = self._known.get(task_id, "")
            queue = await self._children.queue_of(role)
            with contextlib.suppress(WaitTimeout, QueueError):  # trouble shows when it is looked once more
                await queue.wait(_id_in_queue(task_id, role), left_s)

        async with asyncio.TaskGroup() as waits:
            for task_id in found.pending:
                waits.create_task(wait_for(task_id))
        return await self.look()

    async def _results(self) -> dict[str, TaskResult | None]:
        results: dict[str, TaskResult | None] = {}
        by_role: dict[str, list[str]] = {}
        for task_id in self._asked:
            role = self._known.get(task_id, "") if task_id in self._elsewhere else ""
            by_role.setdefault(role, []).append(task_id)
        for role, task_ids in by_role.items():
            queue = await self._children.queue_of(role)
            found = await queue.results([_id_in_queue(each, self._known.get(each, "")) for each in task_ids])
            results |= dict(zip(task_ids, found, strict=True))
        return results


def other_id(task_id: str, role: str) -> str:
    """What a task goes by if another one of the same id, in another role's queue, was delegated as well."""
    return f"{role}:{task_id}"


def _id_in_queue(task_id: str, role: str) -> str:
    return task_id.removeprefix(other_id("", role))


def _text(result: TaskResult) -> str:
    return result.output if result.ok else f"[error] {result.error}"


def _told(child: ChildState) -> str:
    return f"[error] {child.error}" if child.error else child.output


def _has_ended(child: ChildState) -> bool:
    return child.phase.is_final


def _waits_for(pending: int) -> str:
    return "the result of a delegated task" if pending == 1 else f"results of {pending} delegated tasks"
