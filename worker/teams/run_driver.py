"""One run, driven to its end: read what has happened, decide, do it, wait for what comes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

import structlog
from msgspec import Struct

from queue_backends import Backend, InvalidTask, QueueError, QueueFull
from worker.approvals import Approvals
from worker.persistence import persistently
from worker.teams import task_ends
from worker.teams.actions import Action, AskPerson, Note, Stop, Submit
from worker.teams.asking import ask, decided, has_answer
from worker.teams.errors import BadInput, TeamError, TemplateError
from worker.teams.errors import RunEnded as RunIsOver
from worker.teams.folding import Folding
from worker.teams.run_events import ApprovalDecided, ChildEnded, Event, RunEnded, StepEnded, TaskEnded, TaskSubmitted
from worker.teams.run_spans import RunSpans
from worker.teams.run_state import ChildState, Phase, RunState
from worker.teams.runs import LOOK_AGAIN_S, Runs, summary_of
from worker.teams.scheduling import decide, is_working, next_moment
from worker.teams.step_fold import Work
from worker.teams.step_tasks import sub_run_id, sub_run_input, task_of
from worker.teams.waits import Waits

GIVE_UP_S = 30.0
"""What was told to end is waited for so long."""
FULL_AGAIN_S = 1.0
"""When the queue is full, a task is submitted again after so long."""
_SHORTEST_WAIT_S = 0.01
_READ_AGAIN_S = (0.01, 0.05, 0.2, 0.5)

log = structlog.get_logger(__name__)


class Resting(Struct, frozen=True, kw_only=True):
    """A run that needs nobody for now."""

    until: float
    """When time alone lets it go on. Unix seconds."""
    waits_for: tuple[str, ...]
    """Approvals, each of which lets it go on."""


class Around(Struct, frozen=True, kw_only=True):
    """What the driving of runs needs."""

    backend: Backend
    runs: Runs
    approvals: Approvals
    spans: RunSpans | None = None
    """Where runs and steps are traced; None: nowhere."""


class RunDriver:
    """Drives one run; another one drives the run of a team that does a step of it."""

    def __init__(self, around: Around, run_id: str) -> None:
        self._around = around
        self._runs = around.runs
        self.run_id = run_id
        self._folding: Folding
        self._cursor = ""
        self._news: list[Event] = []
        self._woken = asyncio.Event()
        self._waiting: dict[str, asyncio.Task[None]] = {}
        """What is waited for -> who waits for it."""
        self._submitted: set[str] = set()
        """Tasks that this driver has submitted itself."""
        self._told_to_stop: dict[str, float] = {}
        """Tasks and runs -> when they were told."""
        self._full_until = 0.0
        self._shown: tuple[Phase, int] | None = None

    async def drive(self, *, may_rest: bool = False) -> RunState | Resting:
        """Drive it to its end, over outages of the store and the queue. With `may_rest`, return early while it waits
        for nothing but people. Raises `RunNotFound`."""
        async with self._runs.wakes.of(self.run_id) as self._woken:
            self._folding, self._cursor = await persistently(lambda: self._runs.fold(self.run_id), "read a run")
            try:
                async with asyncio.TaskGroup() as self._tasks:
                    resting = await self._until_over(may_rest=may_rest)
                    for waiting in self._waiting.values():
                        waiting.cancel()
            finally:
                self._waiting.clear()
        if resting is not None:
            return resting
        await self._finish()
        return self._folding.state()

    async def _until_over(self, *, may_rest: bool) -> Resting | None:
        while True:
            self._woken.clear()
            await self._take_in()
            now = time.time()
            await self._do_all(now)
            await self._show()
            if self._folding.is_over:
                return None
            if self._news:
                continue
            self._watch_over_works()
            if may_rest and (resting := await self._rest()) is not None:
                return resting
            await self._wait(now)

    async def _do_all(self, now: float) -> None:
        """Do what is to be done until nothing is left but to wait, and then write down what that was, in one step. Who
        dies in between has submitted tasks, which are found again by their keys."""
        while True:
            done: list[Event] = []
            while events := await self._perform(decide(self._folding, now, gives_up=self._gives_up(now)), now):
                self._folding.add(events)
                done += events
            if not done:
                return
            if await self._append(done) == len(done):
                self._trace(done)
                return
            # Somebody else drives it, too: what he wrote first counts.
            await asyncio.sleep(_READ_AGAIN_S[0])
            self._folding, self._cursor = await persistently(lambda: self._runs.fold(self.run_id), "read a run")

    def _trace(self, events: Sequence[Event]) -> None:
        spans = self._around.spans
        for event in events:
            if spans is None:
                return
            if isinstance(event, StepEnded) and event.iteration:
                spans.step_ended(self._folding, event, self._folding.steps[event.step].iteration_at)
            elif isinstance(event, RunEnded):
                spans.run_ended(self._folding, event)

    # What has happened

    async def _take_in(self) -> None:
        """What our own tasks came to, and what others wrote until then: a task that has ended may have delegated."""
        news, self._news = self._news, []
        if news:
            await self._append(news)
            await self._wake_parents(news)
        missing = {event.id for event in news} - await self._read() - self._folding.seen
        tries = 0
        while missing:  # some stores show a record a little after it was written
            await asyncio.sleep(_READ_AGAIN_S[min(tries, len(_READ_AGAIN_S) - 1)])
            missing -= await self._read()
            tries += 1

    async def _wake_parents(self, news: Sequence[Event]) -> None:
        """Of delegated tasks that have ended: who waits for their results was put down, and would look by itself, but
        later. A task's own worker has told them already; a run of another team has none."""
        children = self._folding.children
        ended = {event.task_id for event in news if isinstance(event, ChildEnded)}
        over = ended | {task_id for task_id, child in children.items() if child.phase.is_final}
        parents = {children[task_id].parent for task_id in ended if task_id in children}
        waits = Waits(self._runs.state)
        with contextlib.suppress(QueueError):
            if ready := [parent for parent in parents if await waits.is_over(parent, over)]:
                await self._around.backend.queue.wake(ready)

    async def _append(self, events: Sequence[Event]) -> int:
        return await persistently(lambda: self._runs.append_all(self.run_id, events), "write a run's events")

    async def _read(self) -> set[str]:
        """Read the log on; returns the ids of what was read."""
        seen: set[str] = set()
        while True:
            self._cursor, events = await persistently(
                lambda: self._runs.read_on(self.run_id, self._cursor), "read a run's events"
            )
            if not events:
                return seen
            known = [event for event in events if event is not None]
            self._folding.add(known)
            seen.update(event.id for event in known)

    # What is to be done

    async def _perform(self, actions: list[Action], now: float) -> list[Event]:
        """Do it all; returns what has happened by that."""
        events: list[Event] = []
        for action in actions:
            match action:
                case Note(events=noted):
                    events += noted
                case Submit():
                    events += await self._submit(action, now)
                case AskPerson(step=step):
                    events.append(await self._ask(step))
                case Stop(steps=steps):
                    await self._stop(steps, now)
        return events

    async def _ask(self, step: str) -> Event:
        return await persistently(lambda: ask(self._around.approvals, self._folding, step), "ask a person")

    async def _submit(self, wanted: Submit, now: float) -> list[Event]:
        role = self._folding.team.role(wanted.role)
        try:
            if role is not None and role.team and wanted.purpose == "step":
                return [await self._start_run(role.team, wanted)]
            if now < self._full_until:
                return []
            task = task_of(self._folding, wanted)
            task_id = await persistently(lambda: self._around.backend.queue.submit(task), "submit a run's task")
        except QueueFull:
            self._full_until = now + FULL_AGAIN_S
            return []
        except (TemplateError, BadInput, InvalidTask, TeamError) as error:
            return [_failed(wanted, str(error), now)]
        self._submitted.add(task_id)
        return [_submitted(wanted, now, task_id=task_id)]

    async def _start_run(self, team: str, wanted: Submit) -> Event:
        folding = self._folding
        header = folding.header
        given = sub_run_input(folding, folding.team.step(wanted.step))
        run_id = await persistently(
            lambda: self._runs.start(
                folding.plan,
                given,
                run_id=sub_run_id(header.id, wanted),
                team=team,
                tenant=header.tenant,
                trigger=header.trigger,
                parent=(header.id, wanted.step),
                is_local=header.is_local,
                labels=header.labels,
                traceparent=header.traceparent,
                tracestate=header.tracestate,
            ),
            "start the run of a step",
        )
        return _submitted(wanted, time.time(), run_id=run_id)

    async def _stop(self, steps: tuple[str, ...], now: float) -> None:
        """Tell all that works for these steps (for all, if there are none) to end, once each."""
        tasks: list[str] = []
        runs: list[str] = []
        for child in self._folding.children.values():
            if not child.phase.is_final and (not steps or child.step in steps):
                (runs if self._is_run(child) else tasks).append(child.task_id)
        for name, fold in self._folding.steps.items():
            for work in fold.works.values():
                if work.ended is None and not fold.phase.is_final and (not steps or name in steps):
                    (runs if work.run_id else tasks).append(work.run_id or work.task_id)
        fresh = [each for each in tasks if each not in self._told_to_stop]
        if fresh:
            await persistently(lambda: self._around.backend.queue.cancel(fresh), "cancel a run's tasks")
        for run_id in [each for each in runs if each not in self._told_to_stop]:
            await persistently(partial(self._cancel_run, run_id), "cancel the run of a step")
        for each in (*tasks, *runs):
            self._told_to_stop.setdefault(each, now)

    async def _cancel_run(self, run_id: str) -> None:
        with contextlib.suppress(RunIsOver):
            await self._runs.cancel(run_id, reason=f"run {self.run_id} needs it no more")

    def _gives_up(self, now: float) -> bool:
        """Whether what was told to end has had its time. Runs of other teams have their own patience."""
        if not self._told_to_stop or any(name.startswith("run ") for name in self._waiting):
            return False
        return now - max(self._told_to_stop.values()) > GIVE_UP_S

    # What comes

    def _watch_over_works(self) -> None:
        """Have somebody wait for each task, run and person that the run needs."""
        for name, fold in self._folding.steps.items():
            if fold.phase.is_final:
                continue
            for work in fold.works.values():
                if work.ended is None and work.run_id:
                    self._expect(f"run {work.run_id}", self._run_ends(name, fold.iteration, work))
                elif work.ended is None and work.task_id:
                    self._expect(f"task {work.task_id}", self._task_ends(name, fold.iteration, work))
            if fold.phase is Phase.WAITING and fold.asked is not None:
                self._expect(f"approval {name}", self._person_decides(name, fold.asked.approval_id))
        for child in self._folding.children.values():
            if not child.phase.is_final and self._is_run(child):
                self._expect(f"run {child.task_id}", self._child_run_ends(child.task_id))
            elif not child.phase.is_final:
                self._expect(f"task {child.task_id}", self._child_ends(child.task_id))

    def _expect(self, what: str, waiting: Coroutine[Any, Any, None]) -> None:
        if what in self._waiting:
            waiting.close()
        else:
            self._waiting[what] = self._tasks.create_task(waiting, name=f"{self.run_id}: {what}")

    async def _task_ends(self, step: str, iteration: int, work: Work) -> None:
        result = await task_ends.result_of(self._around.backend, work.task_id, is_new=work.task_id in self._submitted)
        self._hear(task_ends.ended(step, iteration, work, result))

    async def _child_ends(self, task_id: str) -> None:
        self._hear(
            task_ends.child_ended(task_id, await task_ends.result_of(self._around.backend, task_id, is_new=False))
        )

    def _is_run(self, child: ChildState) -> bool:
        """Whether it was delegated to a role that is a team."""
        role = self._folding.team.role(child.role)
        return role is not None and bool(role.team)

    async def _child_run_ends(self, run_id: str) -> None:
        self._hear(task_ends.child_run_ended(await self._driven(run_id)))

    async def _run_ends(self, step: str, iteration: int, work: Work) -> None:
        self._hear(task_ends.run_ended(step, iteration, work, await self._driven(work.run_id)))

    async def _driven(self, run_id: str) -> RunState:
        """A run that belongs to this one, driven to its end."""
        state = await RunDriver(self._around, run_id).drive()
        assert isinstance(state, RunState)  # noqa: S101 - it was not allowed to rest
        return state

    async def _person_decides(self, step: str, approval_id: str) -> None:
        self._hear(await decided(self._around.approvals, step, approval_id))

    def _hear(self, event: TaskEnded | ChildEnded | ApprovalDecided) -> None:
        self._news.append(event)
        self._woken.set()

    async def _wait(self, now: float) -> None:
        """Until something happens, or time alone changes what is to be done."""
        moments = [next_moment(self._folding), self._full_until or None]
        if self._told_to_stop:
            moments.append(max(self._told_to_stop.values()) + GIVE_UP_S)
        later = [moment - now for moment in moments if moment is not None and moment > now]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(min([*later, LOOK_AGAIN_S]), 0) + _SHORTEST_WAIT_S):
                await self._woken.wait()

    # Letting go, and the end

    async def _rest(self) -> Resting | None:
        """What it waits for, if that is people alone, and none of them has answered."""
        if is_working(self._folding) or self._news:
            return None
        asked = [
            fold.asked
            for fold in self._folding.steps.values()
            if fold.phase is Phase.WAITING and fold.asked is not None
        ]
        if not asked or await persistently(lambda: has_answer(self._around.approvals, asked), "look for answers"):
            return None
        moments = [each.until for each in asked]
        if (moment := next_moment(self._folding)) is not None:
            moments.append(moment)
        return Resting(until=min(moments), waits_for=tuple(each.approval_id for each in asked))

    async def _show(self) -> None:
        """Keep what lists show up to date."""
        if self._folding.is_over:
            return
        summary = summary_of(self._folding)
        shown = (summary.phase, summary.steps_ended)
        if shown != self._shown:
            keep_s = self._runs.keep_s_of(self._folding)
            await persistently(lambda: self._runs.index.write(summary, keep_s=keep_s), "write a run's summary")
            self._shown = shown

    async def _finish(self) -> None:
        await persistently(lambda: self._runs.settle(self._folding), "write the summary of a run that has ended")
        for fold in self._folding.steps.values():
            if fold.asked is not None and fold.decided is None:
                with contextlib.suppress(QueueError):
                    await self._around.approvals.withdraw(fold.asked.approval_id)


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
