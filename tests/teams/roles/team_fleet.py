"""A worker, runs of teams and their driver in one process, for the tests of roles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from msgspec.structs import replace

from providers import AgentConfig
from queue_backends import Backend, Task, TaskResult, open_backend
from worker.assembly import open_worker
from worker.settings import Settings
from worker.settings.load import load_settings
from worker.teams.driver import Driver
from worker.teams.marks import Marks
from worker.teams.plan import Plan, Role, Step, Team
from worker.teams.run_state import RunState
from worker.teams.runs import Runs

WITHIN_S = 30.0


def scripted(*turns: Mapping[str, Any], **fields: Any) -> AgentConfig:
    """An agent that takes these turns, whatever it is asked."""
    return by_prompt({"": turns}, **fields)


def by_prompt(scenarios: Mapping[str, Sequence[Mapping[str, Any]]], **fields: Any) -> AgentConfig:
    """An agent whose turns depend on a word in its prompt."""
    script = {"scenarios": [{"match": match, "turns": list(turns)} for match, turns in scenarios.items()]}
    return AgentConfig(model="mock", provider="scripted", options={"script": script}, **fields)


def calls(name: str, **arguments: Any) -> dict[str, Any]:
    """A turn that calls a tool."""
    return {"tool_calls": [{"name": name, "arguments": arguments}]}


def says(text: str) -> dict[str, Any]:
    """A turn that answers. `{last_result}` is what the last tool said."""
    return {"text": text}


def dynamic(*roles: Role, entry: str = "", name: str = "crew", **fields: Any) -> Team:
    """A dynamic team; its entry is the first role."""
    entry = entry or roles[0].name
    step = Step(name=entry, role=entry, inputs={"task": "{{ .input.task }}"})
    return Team(name=name, mode="dynamic", roles=roles, entry=entry, steps=(step,), wraps_outputs=False, **fields)


def plan_of(*teams: Team) -> Plan:
    """A plan that runs the first of the teams."""
    return Plan(name=teams[0].name, teams=teams)


class Fleet:
    """What the tests talk to."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.runs = Runs(backend.state)
        self.driver = Driver(backend, self.runs)

    async def run(self, plan: Plan, given: Mapping[str, Any] | None = None, *, tenant: str = "") -> RunState:
        """Start a run and drive it to its end."""
        run_id = await self.runs.start(plan, given or {"task": "go"}, tenant=tenant)
        return await self.drive(run_id)

    async def drive(self, run_id: str) -> RunState:
        """Drive a run to its end."""
        async with asyncio.timeout(WITHIN_S):
            return await self.driver.drive(run_id)

    async def task(self, plan: Plan, role: str, prompt: str = "go", *, tenant: str = "", **fields: Any) -> TaskResult:
        """One task of a role of the plan's team, in a run that nobody drives; its result."""
        task = await self.marked(plan, role, prompt, tenant=tenant, **fields)
        return await self.result(await self.backend.queue.submit(task))

    async def marked(self, plan: Plan, role: str, prompt: str = "go", *, tenant: str = "", **fields: Any) -> Task:
        """Such a task, not yet submitted."""
        run_id = await self.runs.start(plan, {"task": prompt}, tenant=tenant)
        marks = Marks(run=run_id, step=plan.team.steps[0].name, plan=plan.digest, team=plan.team.name, role=role)
        return Task(prompt=prompt, tenant=tenant, meta=marks.meta(), **fields)

    async def result(self, task_id: str) -> TaskResult:
        """The result of a task."""
        return await self.backend.queue.wait(task_id, WITHIN_S)


@asynccontextmanager
async def fleet(
    environment: Mapping[str, str] | None = None, *, url: str = "memory://", workers: int = 1, slots: int = 10
) -> AsyncIterator[Fleet]:
    """A fleet on a queue, with as many workers and slots in each."""
    settings = worker_settings(environment, slots=slots)
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(await open_backend(url, settings.backend))
        for _ in range(workers):
            await stack.enter_async_context(open_worker(settings, backend))
        yield Fleet(backend)


def worker_settings(environment: Mapping[str, str] | None = None, *, slots: int = 10) -> Settings:
    """Of a worker whose own agent is scripted, too."""
    settings = load_settings({"AGENT_MODEL": "mock", "AGENT_PROVIDER": "scripted", **(environment or {})})
    return replace(settings, concurrency=slots, retry_base_s=0.01, retry_max_s=0.02, grace_s=0.0)
