"""Roles of teams whose tools have to be approved, and tools that agent plugins and whole-run providers call."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from providers import AgentConfig, CallTool, ChunkFn, ToolCall, ToolSpec, register
from queue_backends import Backend, Task, TokenUsage
from tests.approvals.conftest import WITHIN_S, Office, Working, calls, says, until
from tests.teams.roles.team_fleet import Fleet as TeamFleet
from tests.teams.roles.team_fleet import dynamic, plan_of, scripted
from worker.teams.plan import Approval as HowToAsk
from worker.teams.plan import Role


async def test_a_role_asks_in_its_own_words(office: Office, working: Working, backend: Backend) -> None:
    """Its patterns count beside those of the worker, and so do its message, time and fallback."""
    how = HowToAsk(message="Write {{ .arguments.text }} with {{ .tool }}?", timeout_s=50.0, fallback="approve")
    role = Role(
        name="clerk", config=scripted(calls("peek", "x"), says("{last_result}")), approve_tools=("pe*",), approval=how
    )
    teams = TeamFleet(backend)
    async with working(says("unused")):
        task = await teams.marked(plan_of(dynamic(role)), "clerk", tenant="acme")
        task_id = await backend.queue.submit(task)
        [asked] = await office.asked()
        assert asked.message == "Write x with peek?"
        assert (asked.team, asked.role, asked.tenant, asked.fallback) == ("crew", "clerk", "acme", "approve")
        assert (asked.run, asked.step) == (task.meta["run_name"], "clerk")
        assert 0 < asked.until - asked.asked_at <= 50.0
        await office.approvals.decide(asked.id, approved=True)
        assert (await backend.queue.wait(task_id, WITHIN_S)).output == "saw x"


async def test_what_the_worker_guards_a_role_cannot_open(office: Office, working: Working, backend: Backend) -> None:
    """A team's file adds patterns; it takes none of the worker's away."""
    role = Role(name="clerk", config=scripted(calls("note", "x"), says("done")))
    teams = TeamFleet(backend)
    async with working(says("unused")):
        task_id = await backend.queue.submit(await teams.marked(plan_of(dynamic(role)), "clerk"))
        [asked] = await office.asked()
        await office.approvals.decide(asked.id, approved=False)
        await backend.queue.wait(task_id, WITHIN_S)
    assert office.done == []


class Whole:
    """Runs whole tasks: calls two tools, then answers. Its calls have new ids each time."""

    name = "whole"
    runs = 0

    async def run_task(
        self, config: AgentConfig, task: Task, tools: Sequence[ToolSpec], call_tool: CallTool, chunk_fn: ChunkFn
    ) -> tuple[str, TokenUsage]:
        Whole.runs += 1
        said: list[str] = []
        for name, text in (("peek", "a"), ("note", "b"), ("note", "b")):
            call = ToolCall(id=f"{name}-{text}-{Whole.runs}-{len(said)}", name=name, arguments=f'{{"text": "{text}"}}')
            said.append((await call_tool(call)).content)
        return "; ".join(said), TokenUsage(input_tokens=1, output_tokens=1)


@pytest.fixture
def whole() -> str:
    """The provider, registered."""
    register("whole", Whole)
    Whole.runs = 0
    return "whole"


async def test_a_provider_that_runs_whole_tasks(office: Office, working: Working, whole: str) -> None:
    """It is started over after each answer; the calls before are known by what they were, and made once."""
    async with working(**{"agent.provider": whole, "agent.model": "any", "agent.options": {}}):
        handle = await office.fleet.submit("hi")
        for _ in range(2):
            [asked] = await office.asked()
            await office.parked(handle)
            await office.approvals.decide(asked.id, approved=True)
        result = await handle.result(WITHIN_S)
    assert result.output == "saw a; noted b; noted b"
    assert office.done == ["peek a", "note b", "note b"]


async def test_an_answer_to_one_call_is_none_to_the_next(
    office: Office, working: Working, whole: str, quick_looks: None
) -> None:
    """The same call made again is a question of its own, also once the first one is known from before: looking again
    does not make it, and neither does a no."""
    async with working(**{"agent.provider": whole, "agent.model": "any", "agent.options": {}}):
        handle = await office.fleet.submit("hi")
        [first] = await office.asked()
        await office.approvals.decide(first.id, approved=True)
        [second] = await until(office.approvals.pending, lambda found: len(found) == 1 and found[0].id != first.id)
        runs = Whole.runs
        await until(lambda: _now(Whole.runs), lambda count: count >= runs + 2)
        await office.approvals.decide(second.id, approved=False, comment="once is enough")
        result = await handle.result(WITHIN_S)
    assert "once is enough" in result.output
    assert office.done == ["peek a", "note b"]


async def _now(found: int) -> int:
    return found
