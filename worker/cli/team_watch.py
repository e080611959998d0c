"""Watches a run until it has ended: quietly, line by line, as JSON, or as a live tree."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import cast

from queue_backends import Backend
from worker.approvals import Approval
from worker.cli.interrupts import Interrupts
from worker.cli.live_area import safe
from worker.cli.plain_watch import PlainWatch
from worker.cli.run_documents import step_document
from worker.cli.run_questions import RunQuestions, arguments_of, who_asks
from worker.cli.screen import Screen
from worker.cli.terminal_input import is_interactive, read_line
from worker.teams.plan import Plan
from worker.teams.run_state import RunState, StepState
from worker.teams.runs import Runs

_YES = ("y", "yes")
_NO = ("n", "no")

Show = Callable[[RunState], None]


async def watch_run(
    screen: Screen, backend: Backend, runs: Runs, plan: Plan, run_id: str, *, asked: Interrupts, is_shown: bool
) -> RunState:
    """How the run ended. With `is_shown`, what happens is shown; questions to people are put either way."""
    if is_shown and screen.is_live:
        from worker.cli.live_watch import LiveWatch

        return await LiveWatch(screen, backend, runs, plan, asked).run(run_id)
    questions = Questions(screen, backend, {run_id})
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(questions.ask(), name="questions")
        state = await _follow(runs, run_id, _shower(screen, plan) if is_shown else _nothing)
        asking.cancel()
    return state


async def _follow(runs: Runs, run_id: str, show: Show) -> RunState:
    last: RunState | None = None
    async with aclosing(cast("AsyncGenerator[RunState, None]", runs.follow(run_id))) as states:
        async for last in states:
            show(last)
    assert last is not None  # noqa: S101 - a run that is followed has a state at once
    return last


def _nothing(_: RunState) -> None:
    """Shows nothing."""


def _shower(screen: Screen, plan: Plan) -> Show:
    return JsonWatch(screen).show if screen.as_json else PlainWatch(screen, plan.team).show


class JsonWatch:
    """Writes a step whenever it has changed: `{"step": {…}}`, one document a line."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._steps: dict[str, StepState] = {}

    def show(self, state: RunState) -> None:
        """Write the steps that are not as they were."""
        for step in state.steps:
            if self._steps.get(step.name, StepState(name=step.name, role=step.role)) != step:
                self._steps[step.name] = step
                self._screen.json({"step": step_document(step), "run": state.id})


class Questions:
    """Puts a run's questions to whoever sits at the terminal, one after the other; else says how to answer them."""

    def __init__(self, screen: Screen, backend: Backend, run_ids: set[str]) -> None:
        self._screen = screen
        self._news = asyncio.Event()
        self._questions = RunQuestions(backend, run_ids, self._news.set)
        self._put: set[str] = set()

    async def ask(self) -> None:
        """Endless."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._questions.follow(), name="open questions")
            while True:
                await self._news.wait()
                self._news.clear()
                while new := [each for each in self._questions.open if each.id not in self._put]:
                    self._put.add(new[0].id)
                    await self._put_one(new[0])

    async def _put_one(self, question: Approval) -> None:
        first, *more = [safe(line) for line in question.message.strip().splitlines()] or [""]
        self._screen.note(f"? {who_asks(question)}: {first}".rstrip(), "warn")
        for line in more:
            self._screen.note(f"  {line}".rstrip(), "")
        if arguments := arguments_of(question):
            self._screen.note(f"  {arguments}", "tool")
        if not is_interactive():
            self._screen.note(f"  waits for approval: shoal approve {question.id}")
            return
        if (approved := await self._answer(question)) is not None:
            self._screen.note(f"  {await self._questions.answer(question, approved=approved)}")

    async def _answer(self, question: Approval) -> bool | None:
        """What the user says; None if somebody else has answered meanwhile, or nobody is there any more."""
        while question.id in {each.id for each in self._questions.open}:
            self._screen.prompt("  approve? [y/n] ")
            line = await self._line_or_news()
            if line is None:
                return None
            if line.strip().lower() in _YES + _NO:
                return line.strip().lower() in _YES
        self._screen.note("  answered elsewhere")
        return None

    async def _line_or_news(self) -> str | None:
        """The next line. Empty if there is news of the questions instead."""
        reading = asyncio.create_task(read_line(), name="an answer")
        hearing = asyncio.create_task(self._news.wait(), name="news of questions")
        try:
            await asyncio.wait([reading, hearing], return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                self._screen.answered()
                return reading.result()
            self._news.clear()
            return ""
        finally:
            for task in (reading, hearing):
                task.cancel()
            await asyncio.wait([reading, hearing])
