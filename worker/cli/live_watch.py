"""Watches a run on a terminal: a tree that is drawn in place, and questions that are answered by a key."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

from queue_backends import Backend, QueueError
from worker.approvals import Approval
from worker.cli.interrupts import Interrupts
from worker.cli.live_area import Line, LiveArea, cut, first_lines
from worker.cli.live_tree import Nested, tree
from worker.cli.run_nesting import read_nested
from worker.cli.run_questions import RunQuestions, arguments_of, who_asks
from worker.cli.screen import Screen
from worker.cli.stream_tails import StreamTails
from worker.cli.terminal_input import is_interactive, keys
from worker.cli.wording import duration
from worker.teams.errors import TeamError
from worker.teams.plan import Plan
from worker.teams.run_state import Phase, RunState
from worker.teams.runs import Runs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_LEAST_S = 0.1
"""Between two frames at least."""
_MOVING_S = 0.125
_STILL_S = 1.0
"""Between two frames at most, while something moves, or nothing does."""
_MOST_MESSAGE_LINES = 4
_MOST_ARGUMENT_LINES = 6
_BUSY = (Phase.RUNNING, Phase.VALIDATING)


class LiveWatch:
    """One run on one terminal. `run` returns how it ended, and leaves its tree standing."""

    def __init__(self, screen: Screen, backend: Backend, runs: Runs, plan: Plan, asked: Interrupts) -> None:
        self._screen = screen
        self._runs = runs
        self._plan = plan
        self._asked = asked
        self._news = asyncio.Event()
        self._tails = StreamTails(backend, self._news.set)
        self._nested: dict[str, Nested] = {}
        self._inner: list[asyncio.Task[None]] = []
        self._run_ids: set[str] = set()
        self._questions = RunQuestions(backend, self._run_ids, self._news.set)
        self._answers: asyncio.Queue[tuple[Approval, bool]] = asyncio.Queue()
        self._shown: Approval | None = None
        """The question that stands there now: a key answers it, and no other."""
        self._state: RunState | None = None

    async def run(self, run_id: str) -> RunState:
        """Until the run has ended. When it is cancelled, what stands there stays."""
        self._run_ids.add(run_id)
        area = LiveArea(self._screen)
        try:
            with area, area.below_the_log(), self._answering():
                async with asyncio.TaskGroup() as tasks:
                    side = [
                        tasks.create_task(self._draw(area), name="live tree"),
                        tasks.create_task(self._questions.follow(), name="questions"),
                        tasks.create_task(self._answer(), name="answers"),
                    ]
                    state = await self._follow(run_id, tasks)
                    for task in (*side, *self._inner):
                        task.cancel()
                self._nested |= await read_nested(self._runs, state)
        finally:
            await self._tails.close()
            area.erase()
            self._leave_standing()
        return state

    # What is known

    async def _follow(self, run_id: str, tasks: asyncio.TaskGroup) -> RunState:
        async with aclosing(cast("AsyncGenerator[RunState, None]", self._runs.follow(run_id))) as states:
            async for state in states:
                self._state = state
                self._follow_nested(state, tasks)
                self._follow_tails()
        assert self._state is not None  # noqa: S101 - a run that is followed has a state at once
        return self._state

    def _follow_nested(self, state: RunState, tasks: asyncio.TaskGroup) -> None:
        new = [step.run_id for step in state.steps if step.run_id and step.run_id not in self._run_ids]
        self._run_ids.update(new)
        for run_id in new:
            self._inner.append(tasks.create_task(self._follow_inner(run_id, tasks), name=f"run {run_id}"))

    async def _follow_inner(self, run_id: str, tasks: asyncio.TaskGroup) -> None:
        with contextlib.suppress(TeamError, QueueError):  # a part of the picture, no more
            plan = (await self._runs.read(run_id)).plan
            async with aclosing(cast("AsyncGenerator[RunState, None]", self._runs.follow(run_id))) as states:
                async for state in states:
                    self._nested[run_id] = Nested(plan, state)
                    self._follow_nested(state, tasks)
                    self._follow_tails()

    def _follow_tails(self) -> None:
        states = [each.state for each in self._nested.values()]
        if self._state is not None:
            states.append(self._state)
        busy = {step.task_id for state in states for step in state.steps if step.phase in _BUSY}
        busy |= {child.task_id for state in states for child in state.children if not child.phase.is_final}
        self._tails.follow(busy)
        self._news.set()

    # What is shown

    async def _draw(self, area: LiveArea) -> None:
        while True:
            if self._state is not None:
                area.draw(self._frame(self._state))
            await asyncio.sleep(_LEAST_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._longest_s() - _LEAST_S):
                    await self._news.wait()
            self._news.clear()

    def _longest_s(self) -> float:
        is_moving = self._state is not None and any(step.phase in _BUSY for step in self._state.steps)
        return _MOVING_S if is_moving else _STILL_S

    def _frame(self, state: RunState) -> list[Line]:
        width, height = self._screen.size
        below = self._below(width)
        return [
            *tree(
                self._plan,
                state,
                width=width,
                height=height - len(below),
                now=time.time(),
                tails=self._tails.tails,
                nested=self._nested,
                asking={question.task for question in self._questions.open if question.task},
            ),
            *below,
        ]

    def _below(self, width: int) -> list[Line]:
        if self._asked.is_set:
            return [(("  cancelling the run; Ctrl-C again quits at once", "warn"),)]
        waiting = self._questions.open
        self._shown = waiting[0] if waiting else None
        return _question_lines(self._shown, len(waiting), width, has_keys=is_interactive()) if self._shown else []

    def _leave_standing(self) -> None:
        if self._state is None:
            return
        width, height = self._screen.size
        is_final = self._state.phase.is_final
        lines = tree(
            self._plan,
            self._state,
            width=width,
            height=height,
            now=time.time(),
            nested=self._nested,
            is_final=is_final,
        )
        for line in lines:
            for text, style in line:
                self._screen.write(text, style)
            self._screen.line()

    # What people answer

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        if not is_interactive():
            yield
            return
        with keys(self._pressed):
            yield

    def _pressed(self, key: str) -> None:
        if self._shown is not None and key.lower() in ("y", "n"):
            self._answers.put_nowait((self._shown, key.lower() == "y"))
            self._shown = None

    async def _answer(self) -> None:
        while True:
            question, approved = await self._answers.get()
            await self._questions.answer(question, approved=approved)


def _question_lines(question: Approval, count: int, width: int, *, has_keys: bool) -> list[Line]:
    """All that there is to decide on, as far as a terminal has room for it."""
    room = max(width - 2, 10)
    asked = first_lines(f"{who_asks(question)}: {question.message}", room, _MOST_MESSAGE_LINES)
    lines: list[Line] = [(("  " if index else "? ", "warn"), (text, "bold")) for index, text in enumerate(asked)]
    arguments = first_lines(arguments_of(question), room, _MOST_ARGUMENT_LINES)
    lines += [(("  ", ""), (text, "tool")) for text in arguments]
    left = duration(max(question.until - time.time(), 0.0))
    how = "y approves, n rejects" if has_keys else f"shoal approve {question.id}"
    more = f"  ({count - 1} more)" if count > 1 else ""
    lines.append((("  ", ""), (cut(f"{how}; {left} left{more}", room), "dim")))
    return lines
