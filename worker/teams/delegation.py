"""The tasks that a run makes for others: how they are submitted, once each, and how their results come back.

A task is submitted under a key made of its parent and the tool call, then noted in the team's run (`Delegated`). If the
worker dies in between, the call is made again, and finds the same task; and the task's own worker notes the same before
it begins (`worker.teams.child_tasks`), so that no delegated task works unseen, whatever becomes of its parent.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from queue_backends import LogRecord, Task, TaskQueue
from queue_backends.messages import encode_json
from worker.errors import WorkerError
from worker.teams.child_limits import room_for
from worker.teams.circles import waiting_for
from worker.teams.collecting import Collected, collect, other_id
from worker.teams.errors import BadInput
from worker.teams.marks import PARENT, Marks
from worker.teams.run_events import Delegated
from worker.teams.run_state import ChildState
from worker.teams.sub_runs import enclosing, start_child_run
from worker.trace_context import inject

if TYPE_CHECKING:
    from worker.agents.resolved import ResolvedAgent
    from worker.teams.team_work import TeamWork

LONGEST_PROMPT_CHARS = 500
"""Of what a run's log keeps of a delegated task's prompt."""
_CHILDREN_S = 30 * 86_400.0
_CARRIED = ("model", "provider", "route")
"""Overrides that a task of the same role has, too."""


class Refused(WorkerError):
    """A task cannot be delegated; the message tells the model why, and what to do instead."""


class UnknownRole(WorkerError):
    """There is no such role, or not for this one. ark's text."""

    def __init__(self, role: str, available: Sequence[str]) -> None:
        super().__init__(f'unknown role "{role}"; available: {", ".join(available)}')


class Wanted(Struct, frozen=True, kw_only=True):
    """A task that a model wants to be done."""

    prompt: str
    role: str = ""
    """Empty: one like its own."""
    is_awaited: bool = False
    """Whether its maker waits for it: then it is as urgent."""


class Known(Struct, frozen=True, kw_only=True):
    """Tasks that were made."""

    roles: dict[str, str]
    """By id: the role whose own queue has it; empty: it is in the worker's."""
    states: dict[str, ChildState]
    """What their team's run knows of them."""
    noted: frozenset[str]
    """Those that the task has made outside of a team."""

    def is_child(self, task_id: str, parent: str) -> bool:
        """Whether a task was made by `parent`, the task that asks."""
        return task_id in self.noted or (task_id in self.states and self.states[task_id].parent == parent)


class Children:
    """The tasks of one run for others."""

    def __init__(self, task: Task, marks: Marks | None, agent: ResolvedAgent, work: TeamWork) -> None:
        self.task = task
        self.marks = marks
        self.work = work
        role = agent.role
        self._team = agent.team
        self._can_delegate = () if role is None else role.can_delegate

    @property
    def roles(self) -> tuple[str, ...]:
        """Whom the run may delegate to, sorted by name."""
        return tuple(sorted(self._can_delegate)) or self.work.routes.roles

    async def submit(self, wanted: Sequence[Wanted], call_id: str) -> list[str]:
        """Submit the tasks that a tool call wants; the same call again gives the same ones. Returns their ids.

        Raises `UnknownRole`, `Refused`, and what submitting does.
        """
        for each in wanted:
            if each.role and each.role not in self.roles:
                raise UnknownRole(each.role, self.roles)
        if self.marks is not None:
            await self._check_limits(self.marks, wanted, call_id)
        try:
            return [
                await self._submit_one(each, self._key(call_id, number, each)) for number, each in enumerate(wanted)
            ]
        except BadInput as error:
            raise Refused(str(error)) from error

    async def submitted_by(self, call: str) -> list[str]:
        """The tasks that this very call has submitted before it was put down to wait for them."""
        wait = await self.work.waits.find(self.task.id, call)
        return [] if wait is None else list(wait.ids)

    async def collect(self, task_ids: Sequence[str], call: str, *, timeout_s: float) -> Collected:
        """Their results, as far as they are there. Raises `Parked` if more are to be waited for."""
        return await collect(self, task_ids, call, timeout_s=timeout_s)

    async def queue_of(self, role: str) -> TaskQueue:
        """Where tasks for a role go that has a queue of its own; all others go into the worker's."""
        return await self.work.routes.queue(role) if role in self.work.routes.roles else self.work.queue

    async def known(self) -> Known:
        """The tasks whose results this run may have: all of its team's run, or its own."""
        states: dict[str, ChildState] = {}
        if self.marks is not None:
            run = await self.work.runs.read(self.marks.run)
            states = {child.task_id: child for child in run.state.children}
        noted = await self._noted()
        return Known(roles=dict.fromkeys(states, "") | noted, states=states, noted=frozenset(noted))

    async def waiting_for_us(self, task_ids: Sequence[str]) -> list[str]:
        """Those that wait, directly or through others, for this task, or for the run that it works for."""
        targets = [self.task.id]
        if self.marks is not None:
            targets += await enclosing(self.work.runs, self.marks.run)
        return await waiting_for(targets, task_ids, waits=self.work.waits, queue=self.work.queue)

    # Submitting

    async def _check_limits(self, marks: Marks, wanted: Sequence[Wanted], call_id: str) -> None:
        team = self._team
        if team is not None and marks.depth >= team.max_depth:
            raise Refused(
                f"the team's depth limit of {team.max_depth} is reached: nothing can be delegated from here, do the "
                "work yourself"
            )
        call = f"{self.task.id}:{call_of(call_id or secrets.token_hex(8), wanted)}"
        if refused := await room_for(self.work.runs, marks.run, call, len(wanted)):
            raise Refused(
                f"{refused}, and there is no room for {len(wanted)} more: go on with the results that there are"
            )

    async def _submit_one(self, wanted: Wanted, key: str) -> str:
        marks = self._marks_of(wanted)
        task = inject(self._task(wanted, key, marks))
        if marks is None:
            queue = await self.queue_of(wanted.role)
            return await self._note(await queue.submit(task), wanted.role)
        role = self._team.role(marks.role) if self._team is not None else None
        if role is not None and role.team:
            task_id = await start_child_run(self.work.runs, task, marks, role)
        else:
            task_id = await self.work.queue.submit(task)
        await self.work.runs.append(marks.run, delegated(replace(task, id=task_id), marks))
        return task_id

    def _marks_of(self, wanted: Wanted) -> Marks | None:
        """None: it goes to a queue whose workers are that role."""
        marks = self.marks
        if marks is None or (wanted.role and wanted.role not in self._can_delegate):
            return None
        return replace(
            marks,
            role=wanted.role or marks.role,
            parent=self.task.id,
            depth=marks.depth + 1,
            purpose="delegated" if wanted.role else "subtask",
        )

    def _task(self, wanted: Wanted, key: str, marks: Marks | None) -> Task:
        task = self.task
        made = Task(prompt=wanted.prompt, tenant=task.tenant, idempotency_key=key)
        if marks is not None or wanted.role or wanted.is_awaited:  # a plain agent's follow-up task is on its own
            made = replace(made, priority=task.priority, deadline=task.deadline, session_id=task.session_id)
        if marks is not None:
            made = replace(made, meta=marks.meta(), agent=f"{marks.team}.{marks.role}")
            if wanted.role:
                return made
            return replace(made, overrides={name: value for name, value in task.overrides.items() if name in _CARRIED})
        if wanted.role:
            return made
        return replace(made, agent=task.agent, meta={PARENT: task.id})

    def _key(self, call_id: str, number: int, wanted: Wanted) -> str:
        """Made of the call and what it wants; a run that is tried anew may use a call's id for something else."""
        if not self.task.id or not call_id:
            return ""
        digest = hashlib.sha256(f"{wanted.role}\0{wanted.prompt}".encode("utf-8", "replace")).hexdigest()[:16]
        return f"{self.task.id}:{call_id}:{number}:{digest}"

    # What is known of tasks that are not a team's

    async def _note(self, task_id: str, role: str) -> str:
        """Returns the id that it goes by here. Ids are unique in one queue alone: on Redis they are made of the time,
        so that tasks for two roles often have the same."""
        name = task_id
        for name in (task_id, other_id(task_id, role)):
            record = LogRecord(log=self._log, id=name, value=encode_json(role), keep_s=_CHILDREN_S)
            is_new = await self.work.runs.state.append_once([record])
            if is_new or (await self._noted()).get(name, role) == role:
                break
        return name

    async def _noted(self) -> dict[str, str]:
        entries = await self.work.runs.state.read_log(self._log, limit=10_000)
        return {entry.id: entry.value.decode().strip('"') for entry in entries}

    @property
    def _log(self) -> str:
        return f"task-children/{self.task.id}"


def call_of(call_id: str, wanted: Sequence[Wanted] | Sequence[str]) -> str:
    """A call, by its id and what it wants: a run that is tried anew may use an id for something else."""
    return f"{call_id}:{hashlib.sha256(repr(list(wanted)).encode()).hexdigest()[:16]}"


def delegated(task: Task, marks: Marks) -> Delegated:
    """The event of a delegated task; its parent's worker and its own say the same."""
    prompt = task.prompt
    return Delegated(
        at=time.time(),
        call_id=task.idempotency_key or task.id,
        task_id=task.id,
        step=marks.step,
        parent=marks.parent,
        role=marks.role,
        prompt=prompt if len(prompt) <= LONGEST_PROMPT_CHARS else f"{prompt[:LONGEST_PROMPT_CHARS]}…",
        depth=marks.depth,
        purpose=marks.purpose,
    )
