"""What a run does because it is the work of a team: it takes its role's place, with its tools, its limits and what it
remembers."""

from __future__ import annotations

import time

from queue_backends import Delivery, Task
from worker.agents import ResolvedAgent
from worker.ending import Ending
from worker.journal import Recalled
from worker.recall import Past
from worker.streaming import ChunkWriter
from worker.surroundings import Surroundings
from worker.teams.child_tasks import begin_child
from worker.teams.marks import PLAIN_PURPOSES, Marks
from worker.teams.memory.memories import Memories
from worker.teams.memory.recollection import NOTHING, Recollection
from worker.teams.plan import Role
from worker.teams.role_tools import OwnTools


class TeamTask:
    """One delivery of a team's task."""

    __slots__ = ("_around", "_chunks", "_delivery", "_marks", "own_tools")

    def __init__(self, marks: Marks, around: Surroundings, delivery: Delivery, chunks: ChunkWriter) -> None:
        self._marks = marks
        self._around = around
        self._delivery = delivery
        self._chunks = chunks
        self.own_tools: OwnTools | None = None
        """Of its role, once it has begun; to be given back by `close`."""

    async def begin(self, agent: ResolvedAgent, past: Past, ending: Ending) -> Task:
        """Have ready what it needs; returns the task as its role sees it."""
        task, teams, marks = self._delivery.task, self._around.teams, self._marks
        if teams is None or agent.role is None or agent.team is None:
            return task
        if marks.depth:
            ending.child = await begin_child(teams.runs, task, marks)
        if marks.purpose not in PLAIN_PURPOSES:
            self.own_tools = await teams.tools.take(agent.team, agent.role, task.tenant)
        if agent.role.memory is not None and not task.conversation_id:  # a conversation is a memory of its own
            return await self._remembering(teams.memories, agent.role, past)
        return task

    async def _remembering(self, memories: Memories, role: Role, past: Past) -> Task:
        """The task after what its role remembers. A run that was begun goes on from turns that followed from what was
        remembered then, whatever has come to it since."""
        task, found = self._delivery.task, NOTHING
        if past.recalled is not None:
            found = Recollection(history=past.recalled.history, preface=past.recalled.preface)
        elif not past.has_begun:
            found = await memories.recall(task, self._marks, role)
            if found:
                entry = Recalled(worker=self._delivery.worker, history=found.history, preface=found.preface)
                self._chunks.note(*self._around.journal.records(task.id, entry))
        return found.before(task)

    async def keep_in_memory(self, role: Role | None, output: str) -> None:
        """The answer is there already: that its role shall remember it does not cost it any more."""
        teams = self._around.teams
        if teams is not None and role is not None:
            await teams.memories.keep(self._delivery.task, self._marks, role, output)

    def close(self) -> None:
        """Give back what it took."""
        if self.own_tools is not None and self._around.teams is not None:
            self._around.teams.tools.give_back(self.own_tools)


def own_limit_s(role: Role | None, task: Task) -> float | None:
    """The time limit of a role, which counts instead of the worker's, but ends with the task's deadline. Seconds; None:
    it has none."""
    if role is None or not role.timeout_s:
        return None
    if task.deadline is None:
        return role.timeout_s
    return min(role.timeout_s, max(0.0, task.deadline - time.time()))
