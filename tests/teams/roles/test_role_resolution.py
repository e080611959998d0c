"""Which configuration a team's task is run with, and what is refused."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from providers import AgentConfig
from queue_backends import Task, UsageRecord, open_backend
from tests.teams.roles.team_fleet import calls, dynamic, fleet, plan_of, says, scripted
from worker.agents.model import Agent
from worker.definitions import Definitions
from worker.errors import AgentUnusable
from worker.metrics import Metrics
from worker.teams.errors import PlanNotFound, RunNotFound
from worker.teams.marks import Marks
from worker.teams.plan import Plan, Role, Team
from worker.teams.plans_in_use import PlansInUse
from worker.teams.roles import Roles, role_config
from worker.teams.run_keys import plan_key
from worker.teams.runs import Runs

TEAM = Team(name="crew")


def role(**fields: Any) -> Role:
    return Role(name="writer", config=AgentConfig(**fields))


def test_a_role_without_a_model_is_called_where_its_worker_calls() -> None:
    """Model, provider, address and options are the worker's own agent's; the prompt is the role's."""
    default = AgentConfig(
        model="m", provider="p", base_url="http://x", options={"a": 1}, system_prompt="worker's", max_turns=7
    )

    config = role_config(role(model="", system_prompt="role's"), TEAM, default)

    assert (config.model, config.provider, config.base_url, config.options) == ("m", "p", "http://x", {"a": 1})
    assert (config.system_prompt, config.max_turns, config.name) == ("role's", 7, "crew.writer")


def test_a_role_without_a_prompt_has_not_the_workers() -> None:
    """A worker's own instructions are for its own agent."""
    default = AgentConfig(model="m", system_prompt="worker's", output_schema={"type": "object"})

    config = role_config(role(model=""), TEAM, default)

    assert config.system_prompt == ""
    assert config.output_schema is None


def test_a_role_that_names_a_model_says_all_about_where_it_is_called() -> None:
    """A key or an address of the worker's vendor must not go to another one."""
    default = AgentConfig(model="m", provider="p", base_url="http://x", api_key_env="KEY", route="r")

    config = role_config(role(model="other"), TEAM, default)

    assert (config.model, config.provider, config.base_url, config.api_key_env, config.route) == (
        "other",
        "",
        "",
        "",
        "",
    )


def test_a_role_has_the_workers_fence_of_tools_unless_it_names_its_own() -> None:
    """Naming none does not open what the worker's own agent may not call."""
    default = AgentConfig(model="m", tools=("search__*",))

    assert role_config(role(model=""), TEAM, default).tools == ("search__*",)
    assert role_config(role(model="", tools=("dig",)), TEAM, default).tools == ("dig",)


def test_no_model_anywhere_is_said() -> None:
    """The message names the role, and what to do."""
    with pytest.raises(AgentUnusable, match=r"role 'writer' of team 'crew' has no model.*AGENT_MODEL"):
        role_config(role(model=""), TEAM, AgentConfig(model=""))


async def test_a_task_runs_as_its_role_and_is_accounted_to_it() -> None:
    """Its answer is the role's; its usage record has team and role; overrides of the task come on top."""
    script = {"scenarios": [{"turns": [says("as {prompt}")]}]}
    worker = Role(name="writer", config=AgentConfig(model="mock", provider="scripted", options={"script": script}))
    async with fleet() as crew:
        result = await crew.task(plan_of(dynamic(worker)), "writer", "told", overrides={"model": "mock-2"})
        entries = await crew.backend.state.read_log("usage")

    assert result.output == "as told"
    [record] = [msgspec.json.decode(entry.value, type=UsageRecord) for entry in entries]
    assert (record.team, record.role, record.agent, record.model) == ("crew", "writer", "crew.writer", "mock-2")


async def test_a_question_about_the_work_has_no_tools() -> None:
    """A semantic check, say, is made as the role, but without anything that it could do."""
    lead = Role(
        name="lead", config=scripted(calls("delegate", role="w", prompt="p"), says("{results}")), can_delegate=("w",)
    )
    async with fleet() as crew:
        task = await crew.marked(plan_of(dynamic(lead, Role(name="w"))), "lead")
        task = msgspec.structs.replace(task, meta={**task.meta, "team_purpose": "check"})
        result = await crew.result(await crew.backend.queue.submit(task))

    assert result.output == 'tool "delegate" is not available to this agent; available: none'


async def test_a_role_can_be_an_agent_that_the_fleet_has_declared() -> None:
    """Its configuration is the agent's, as it is when the task begins; delegation is the role's."""
    lead = Role(name="lead", agent="scribe", can_delegate=("w",))
    helper = Role(name="w", config=scripted(says("help")))
    script = {"scenarios": [{"turns": [calls("delegate", role="w", prompt="p"), says("{results}")]}]}
    async with fleet() as crew, Definitions(crew.backend.state) as declared:
        agent = Agent(
            slug="scribe", provider="scripted", model="mock", tools=("none",), settings={"options": {"script": script}}
        )
        await declared.agents.create(agent)

        result = await crew.task(plan_of(dynamic(lead, helper)), "lead")

    assert result.output.startswith('task delegated to role "w" with id: ')


async def test_an_agent_that_nobody_has_declared_is_never_replaced_by_the_workers_own() -> None:
    """A worker that runs any plain task with its own agent must not do so for a role."""
    async with fleet() as crew:
        result = await crew.task(plan_of(dynamic(Role(name="lead", agent="scribe"))), "lead")

    assert result.error == "no agent 'scribe' is declared here; declared: default"


async def test_a_role_that_the_plan_does_not_have() -> None:
    """The task fails at once, and the message names those that there are."""
    async with fleet() as crew:
        result = await crew.task(plan_of(dynamic(Role(name="lead"))), "nobody")

    assert result.error == "team 'crew' has no role 'nobody'; there are: lead"


async def test_another_tenants_plan_is_not_to_be_had() -> None:
    """Whoever knows a run's and a plan's name gets neither its prompts nor its tools for his own tenant."""
    plan = plan_of(dynamic(Role(name="lead", config=scripted(says("secret recipe")))))
    async with fleet({"AGENT_MAX_RETRIES": "0"}) as crew:
        theirs = await crew.marked(plan, "lead", tenant="acme")
        other = msgspec.structs.replace(theirs, tenant="rival")
        nobodys = msgspec.structs.replace(theirs, tenant="")

        results = [await crew.result(await crew.backend.queue.submit(task)) for task in (theirs, other, nobodys)]

    assert results[0].output == "secret recipe"
    assert all("it is not kept, or not yours" in result.error for result in results[1:])


async def test_a_run_and_a_plan_that_do_not_belong_together() -> None:
    """A task cannot take the plan of a second run that it may not see, by naming a first one that it may."""
    mine, theirs = (plan_of(dynamic(Role(name="lead", config=scripted(says(text))))) for text in ("mine", "theirs"))
    async with fleet({"AGENT_MAX_RETRIES": "0"}) as crew:
        await crew.runs.start(theirs, {}, tenant="acme")
        task = await crew.marked(mine, "lead", tenant="rival")
        mixed = msgspec.structs.replace(task, meta={**task.meta, "team_plan": theirs.digest})

        result = await crew.result(await crew.backend.queue.submit(mixed))

    assert "it is not kept, or not yours" in result.error


async def test_an_unknown_run_is_tried_again_and_then_given_up_clearly() -> None:
    """Another worker may look into the right store: so it is no permanent failure, but it ends."""
    marks = Marks(run="gone", step="s", plan="p", team="crew", role="lead")
    async with fleet({"AGENT_MAX_RETRIES": "1"}) as crew:
        result = await crew.result(await crew.backend.queue.submit(Task(prompt="go", meta=marks.meta())))
        [letter] = await crew.backend.queue.dead_letters()

    assert "no run 'gone' is kept here" in result.error
    assert "SHOAL_STATE_URL" in result.error
    assert letter.attempt == 2


async def test_a_roles_time_limit_ends_its_run() -> None:
    """The message names the role, not the worker's own limit."""
    slow = Role(name="lead", timeout_s=0.05, config=scripted({"text": "late", "delay_s": 60}))
    async with fleet({"AGENT_MAX_RETRIES": "0"}) as crew:
        result = await crew.task(plan_of(dynamic(slow)), "lead")

    assert result.error == "the run took longer than 0.05 s: raise the time limit of role 'lead'"


async def test_a_roles_time_limit_may_be_longer_than_the_workers() -> None:
    """The file says how long its work takes; also with a deadline that is later than the worker's own limit."""
    slow = Role(name="lead", timeout_s=30.0, config=scripted({"text": "in time", "delay_s": 1.3}))
    async with fleet({"AGENT_MAX_RETRIES": "0", "AGENT_TIMEOUT_SECONDS": "1"}) as crew:
        plan = plan_of(dynamic(slow))
        results = await asyncio.gather(
            crew.task(plan, "lead"), crew.task(plan, "lead", "with a deadline", deadline=4e9)
        )

    assert [result.output for result in results] == ["in time", "in time"]


async def test_a_deadline_comes_before_a_roles_time_limit() -> None:
    """And says so."""
    slow = Role(name="lead", timeout_s=30.0, config=scripted({"text": "late", "delay_s": 60}))
    async with fleet({"AGENT_MAX_RETRIES": "0"}) as crew:
        result = await crew.task(plan_of(dynamic(slow)), "lead", deadline=time.time() + 0.2)

    assert result.error == "the task's deadline has passed"


@pytest.mark.parametrize("whose", ["role", "team"])
async def test_daily_tokens_are_a_budget_of_all_runs_of_the_team(whose: str) -> None:
    """What one run has used is not there for the next; another role, if only one is limited, goes on."""
    usage = {"input_tokens": 90, "output_tokens": 30}
    config = scripted({"text": "done", "usage": usage}, max_tokens=10)
    roles = (
        Role(name="lead", config=config, daily_tokens=100 if whose == "role" else 0),
        Role(name="other", config=config),
    )
    plan = plan_of(dynamic(*roles, max_daily_tokens=100 if whose == "team" else 0))
    async with fleet({"AGENT_MAX_RETRIES": "0"}) as crew:
        with capture_logs() as logs:
            first = await crew.task(plan, "lead")
        second = await crew.task(plan, "lead")
        other = await crew.task(plan, "other")
        foreign = await crew.task(plan, "lead", tenant="acme")

    assert first.ok
    name = "team/crew/lead" if whose == "role" else "team/crew"
    assert second.error.startswith(f'permanent failure: budget "{name}" of team crew is used up: 120 of 100 tokens')
    assert any(line.get("budget") == name for line in logs), logs
    assert other.ok is (whose == "role")
    assert foreign.ok


class Store:
    """Plans that are counted as they are read."""

    def __init__(self, *plans: Plan) -> None:
        self.plans = {plan.digest: plan for plan in plans}
        self.reads: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def plan(self, digest: str) -> Plan:
        self.reads.append(digest)
        await self.go_on.wait()
        return self.plans[digest]

    async def header(self, run_id: str) -> Any:
        raise AssertionError(run_id)


async def test_loads_of_the_same_plan_are_made_once() -> None:
    """Also if the first of those who wait for it is cancelled."""
    plan = plan_of(dynamic(Role(name="lead")))
    store = Store(plan)
    store.go_on.clear()
    plans = PlansInUse(store)

    loads = [asyncio.create_task(plans.load(plan.digest)) for _ in range(5)]
    while not store.reads:
        await asyncio.sleep(0)
    loads[0].cancel()
    store.go_on.set()
    found = await asyncio.gather(*loads, return_exceptions=True)

    assert [each == plan for each in found[1:]] == [True] * 4
    assert len(store.reads) == 2


async def test_only_so_many_plans_are_kept() -> None:
    """The one that was used longest ago is read again when it is wanted."""
    plans_there = [plan_of(dynamic(Role(name=f"lead-{number}"))) for number in range(3)]
    store = Store(*plans_there)
    plans = PlansInUse(store, most=2)
    first, second, third = (plan.digest for plan in plans_there)

    for digest in (first, second, first, third, first, second):
        await plans.load(digest)

    assert store.reads == [first, second, third, second]


async def test_who_starts_many_plans_keeps_only_so_many() -> None:
    """Each inline team is a plan of its own: whoever starts them would grow for ever."""
    plans_there = [plan_of(dynamic(Role(name=f"lead-{number}"))) for number in range(300)]
    async with await open_backend("memory://") as backend:
        runs = Runs(backend.state)
        for each in plans_there:
            await runs.start(each, {"task": "go"})
        for each in (plans_there[0], plans_there[-1]):
            await backend.state.delete(plan_key(each.digest))

        assert await runs.plan(plans_there[-1].digest) == plans_there[-1]
        with pytest.raises(RunNotFound):
            await runs.plan(plans_there[0].digest)


async def test_a_plan_that_is_not_at_hand_is_no_crash() -> None:
    """The directory says what is missing, if nobody has looked for it."""
    roles = Roles(PlansInUse(Store()), AgentConfig(model="m"), lambda name, tenant: pytest.fail(name + tenant))

    with pytest.raises(PlanNotFound, match="not at hand"):
        roles.resolve(Task(prompt="x"), Marks(run="r", step="s", plan="p", team="t", role="w"))


async def test_metrics_tell_roles_apart() -> None:
    """Tasks are counted under their role."""
    seen: list[Metrics] = []
    original = Metrics.__init__

    def note(self: Metrics, *args: Any, **named: Any) -> None:
        original(self, *args, **named)
        seen.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Metrics, "__init__", note)
        async with fleet() as crew:
            plan = plan_of(dynamic(Role(name="lead", config=scripted(says("x")))))
            await crew.task(plan, "lead")

    labels = [dict(agent.labels) for metrics in seen for agent in metrics.agents() if agent.completed]
    assert [(each["agent"], each["role"]) for each in labels] == [("crew.lead", "lead")]
