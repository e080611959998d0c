"""One run, driven to its end: read what has happened, decide, do it, wait for what comes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence

from queue_backends import QueueError
from worker.persistence import persistently
from worker.teams.around import Around, Resting
from worker.teams.asking import has_answer
from worker.teams.doing import Doing
from worker.teams.errors import RunBusy
from worker.teams.expecting import Expecting
from worker.teams.folding import Folding
from worker.teams.run_events import ChildEnded, Event, RunEnded, StepEnded
from worker.teams.run_state import Phase, RunState
from worker.teams.run_summaries import summary_of
from worker.teams.scheduling import decide, is_working, next_moment
from worker.teams.stored_runs import LOOK_AGAIN_S
from worker.teams.waits import Waits

_SHORTEST_WAIT_S = 0.01
_READ_AGAIN_S = (0.01, 0.05, 0.2, 0.5)
_MOST_READS = 40
"""An event that was written and is not seen after so many readings, stands there in words that are not understood."""


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
        self._doing = Doing(around)
        self._shown: tuple[Phase, int] | None = None

    async def drive(self, *, may_rest: bool = False) -> RunState | Resting:
        """Drive it to its end, over outages of the store and the queue. With `may_rest`, return early while it waits
        for nothing but people. Raises `RunNotFound`, and `RunBusy` if only a newer version can go on with it."""
        async with self._runs.wakes.of(self.run_id) as self._woken:
            self._folding, self._cursor = await persistently(lambda: self._runs.fold(self.run_id), "read a run")
            try:
                async with asyncio.TaskGroup() as tasks:
                    expecting = Expecting(self._around, tasks, hear=self._hear, drive=self._drive_other)
                    resting = await self._until_over(expecting, may_rest=may_rest)
                    expecting.stop()
            except ExceptionGroup as errors:  # whatever kept this run, or one of its steps, from being driven
                raise _first(errors) from errors
        if resting is not None:
            return resting
        await self._finish()
        return self._folding.state()

    async def _until_over(self, expecting: Expecting, *, may_rest: bool) -> Resting | None:
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
            expecting.expect(self._folding, self._doing.submitted)
            if may_rest and (resting := await self._rest()) is not None:
                return resting
            await self._wait(now)

    async def _do_all(self, now: float) -> None:
        """Do what is to be done until nothing is left but to wait, and then write down what that was, in one step. Who
        dies in between has submitted tasks, which are found again by their keys."""
        while True:
            done: list[Event] = []
            while events := await self._perform(now):
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

    async def _perform(self, now: float) -> list[Event]:
        actions = decide(self._folding, now, gives_up=self._doing.gives_up(self._folding, now))
        return await self._doing.perform(self._folding, actions, now)

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
            if tries >= _MOST_READS:
                raise RunBusy(f"run {self.run_id} has events of a newer version, which has to drive it: {missing}")
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

    # What comes

    def _hear(self, event: Event) -> None:
        self._news.append(event)
        self._woken.set()

    async def _drive_other(self, run_id: str) -> RunState:
        """A run that belongs to this one, driven to its end."""
        state = await RunDriver(self._around, run_id).drive()
        assert isinstance(state, RunState)  # noqa: S101 - it was not allowed to rest
        return state

    async def _wait(self, now: float) -> None:
        """Until something happens, or time alone changes what is to be done."""
        moments = [next_moment(self._folding), *self._doing.next_moments()]
        later = [moment - now for moment in moments if moment is not None and moment > now]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min([*later, LOOK_AGAIN_S]) + _SHORTEST_WAIT_S):
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


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    error: Exception = errors
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
