"""The live tree while a run goes on: with a real worker and driver, and a terminal made of paper."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from providers import AgentConfig
from tests.teams.cli.hand_made import Paper
from worker.cli import run_questions
from worker.cli.interrupts import Interrupts
from worker.cli.live_watch import LiveWatch
from worker.cli.team_watch import watch_run
from worker.settings import load_settings
from worker.teams.local import LocalFleet, local_fleet
from worker.teams.plan import Approval, Plan, Role, Step, Team
from worker.teams.run_state import Phase, RunState

WITHIN_S = 30.0


def plan(*turns: dict[str, object], approval: Approval | None = None) -> Plan:
    """A step that takes these turns."""
    script = {"scenarios": [{"turns": list(turns)}]}
    role = Role(name="poet", config=AgentConfig(model="mock", provider="scripted", options={"script": script}))
    step = Step(name="poem", role="poet", inputs={"prompt": "go"}, approval=approval)
    return Plan(name="crew", teams=(Team(name="crew", roles=(role,), steps=(step,)),))


@asynccontextmanager
async def local() -> AsyncIterator[LocalFleet]:
    """A fleet in memory."""
    settings = load_settings({"TASK_QUEUE_URL": "memory://", "AGENT_GRACE_SECONDS": "0"})
    async with local_fleet(settings) as fleet:
        yield fleet


async def watched(
    fleet: LocalFleet, wanted: Plan, paper: Paper, *, until: Callable[[], bool] | None = None
) -> RunState:
    """Run a plan to its end with the tree drawn on paper. With `until`, the run is cancelled as soon as that holds."""
    run_id = await fleet.runs.start(wanted, {}, is_local=True)
    watch = LiveWatch(paper, fleet.backend, fleet.runs, wanted, Interrupts())
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(fleet.driver.drive(run_id))
        watching = tasks.create_task(watch.run(run_id))
        while until is not None and not until():
            await paper.written()
        if until is not None:
            await fleet.runs.cancel(run_id)
    return watching.result()


async def test_what_a_step_says_is_shown_while_it_speaks_and_gone_at_the_end() -> None:
    """The tail stands there only as long as the step runs; the final tree has its figures."""
    paper = Paper(is_terminal=True)
    turn = {"text": "the sea at dusk is a mirror", "chunk_delay_s": 60}
    async with local() as fleet:
        state = await watched(fleet, plan(turn), paper, until=lambda: "│ " in paper.all)
    assert state.phase is Phase.CANCELLED
    frames, _, final = paper.all.rpartition("\x1b[J")
    assert "the" in frames
    assert "│" not in final
    assert "poem" in final
    assert "1 of 1 steps" in final


async def test_the_cursor_is_hidden_while_it_draws_and_shown_afterwards() -> None:
    """Also of a run that fails; and the run's end is what `run` returns."""
    paper = Paper(is_terminal=True)
    async with local() as fleet:
        state = await watched(fleet, plan({"text": "done"}), paper)
    assert state.phase is Phase.SUCCEEDED
    assert paper.all.startswith("\x1b[?25l")
    assert paper.all.count("\x1b[?25h") == 1


async def test_a_question_is_put_with_how_to_answer_it_and_is_gone_when_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever answers, the tree shows it; here it is somebody else."""
    from worker.approvals import Approvals

    monkeypatch.setattr(run_questions, "_LOOK_AGAIN_S", 0.1)
    paper = Paper(is_terminal=True)
    asks = Approval(message="May the poem go?")
    async with local() as fleet:
        approvals = Approvals(fleet.backend.state)

        async def answer() -> None:
            while "May the poem go?" not in paper.all:
                await paper.written()
            [question] = await approvals.pending()
            await approvals.decide(question.id, approved=True)

        async with asyncio.TaskGroup() as tasks:
            answering = tasks.create_task(answer())
            state = await watched(fleet, plan({"text": "done"}, approval=asks), paper)
        assert answering.done()
    assert state.phase is Phase.SUCCEEDED
    assert "shoal approve " in paper.all


async def test_without_a_tree_questions_are_notes_with_the_command_that_answers_them() -> None:
    """On stderr, so that a pipe has the lines alone."""
    from worker.approvals import Approvals

    paper = Paper()
    asks = Approval(message="May the poem go?\n\nIt is\x1b[2J short.")
    wanted = plan({"text": "done"}, approval=asks)
    async with local() as fleet, asyncio.timeout(WITHIN_S):
        run_id = await fleet.runs.start(wanted, {}, is_local=True)
        watching = watch_run(paper, fleet.backend, fleet.runs, wanted, run_id, asked=Interrupts(), is_shown=False)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fleet.driver.drive(run_id))
            result = tasks.create_task(watching)
            while "shoal approve" not in paper.notes.getvalue():
                await paper.written()
            [question] = await Approvals(fleet.backend.state).pending()
            await Approvals(fleet.backend.state).decide(question.id, approved=False)
    assert result.result().phase is Phase.FAILED
    assert (
        f"? step poem: May the poem go?\n\n  It is short.\n  waits for approval: shoal approve {question.id}\n"
        == paper.notes.getvalue()
    )
    assert paper.all == ""
