"""Workers run declared agents as they are now: live, within their apps, on their budgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from providers import AgentConfig
from queue_backends import Backend, CallOutcome, Task, TaskResult, open_backend
from worker.agents import Agent, AgentDirectory, App, Llm, Roster
from worker.assembly import open_worker
from worker.client import Fleet
from worker.datasources.model import Datasource
from worker.definitions import Definitions
from worker.errors import AgentNotFound
from worker.ledger.reading import usage_records
from worker.settings import Settings, load_settings

WITHIN_S = 30.0
TOOLS = """
from pathlib import Path
from worker import tool

def note(name: str) -> None:
    with Path(__file__).with_name("called").open("a") as called:
        called.write(name + " ")

@tool
def search() -> str:
    note("search")
    return "found"

@tool
def payroll() -> str:
    note("payroll")
    return "salaries"
"""


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A memory backend of the test's own."""
    async with await open_backend("memory://") as opened:
        yield opened


@asynccontextmanager
async def fleet_on(backend: Backend, **overrides: Any) -> AsyncIterator[Fleet]:
    """A worker inside, with the scripted provider as its own agent's."""
    given = {"agent.model": "scripted", "agent.provider": "scripted", "retry_base_s": 0.0, **overrides}
    async with open_worker(load_settings({}, overrides=given), backend):
        yield Fleet(backend)


def script(text: str = "", *, calls: tuple[str, ...] = (), tokens: int = 10) -> dict[str, Any]:
    """A model that calls these tools one after the other, and then says the text."""
    turns: list[dict[str, Any]] = [{"tool_calls": [{"name": name, "arguments": {}}]} for name in calls]
    usage = {"input_tokens": tokens, "output_tokens": 0}
    return {"script": {"scenarios": [{"turns": [*turns, {"text": text or "{last_result}", "usage": usage}]}]}}


def llm(slug: str, text: str = "", **fields: Any) -> Llm:
    """A model that says this."""
    calls, tokens = fields.pop("calls", ()), fields.pop("tokens", 10)
    options = script(text, calls=calls, tokens=tokens)
    return Llm(slug=slug, **{"provider": "scripted", "model": "scripted", "options": options, **fields})


async def ran(fleet: Fleet, agent: str, **fields: Any) -> TaskResult:
    """The result of a task for an agent."""
    return await (await fleet.submit("hello", agent=agent, **fields)).result(timeout_s=WITHIN_S)


async def until_output(fleet: Fleet, agent: str, wanted: Callable[[TaskResult], bool]) -> TaskResult:
    """The first result of tasks for the agent that is as wanted."""
    async with asyncio.timeout(WITHIN_S):
        while not wanted(result := await ran(fleet, agent)):
            await asyncio.sleep(0.02)  # a worker hears of a change a moment later
    return result


async def test_an_agent_is_there_changed_switched_off_and_gone_without_a_restart(backend: Backend) -> None:
    """The worker that runs all the time takes each step, and its tasks fail for good where there is no agent."""
    async with fleet_on(backend) as fleet:
        await fleet.llms.create(llm("first", "one"))
        await fleet.llms.create(llm("second", "two"))
        await fleet.apps.create("desk", llms=["first", "second"])
        await fleet.agents.create("helper", app="desk")
        await until_output(fleet, "helper", lambda result: result.output == "one")
        await fleet.agents.change("helper", llm="second")
        await until_output(fleet, "helper", lambda result: result.output == "two")
        await fleet.agents.deactivate("helper")
        off = await until_output(fleet, "helper", lambda result: not result.ok)
        assert "'helper' is not active" in off.error
        await fleet.agents.activate("helper")
        await until_output(fleet, "helper", lambda result: result.ok)
        await fleet.apps.deactivate("desk")
        off = await until_output(fleet, "helper", lambda result: not result.ok)
        assert "app 'desk' is not active" in off.error
        await fleet.agents.delete("helper")
        gone = await until_output(fleet, "helper", lambda result: "no agent" in result.error)
        assert not gone.ok
    letters = await backend.queue.dead_letters()
    assert {letter.attempt for letter in letters} == {1}  # none was tried again


async def test_two_processes_on_one_server_agree(queue_url: str) -> None:
    """A real server: what one process declares, another one's directory resolves; what it deletes is gone there, also
    for a process that begins afterwards."""
    settings = Settings(agent=AgentConfig(model="house"))
    task = Task(prompt="x", agent="helper")
    async with await open_backend(queue_url) as here, await open_backend(queue_url) as there:
        async with Definitions(there.state) as heard:
            changed = asyncio.Event()
            heard.agents.on_change(lambda _before, _after: changed.set())
            agents = AgentDirectory(Roster(settings, heard))
            assert agents.config_for(task).model == "house"  # nothing is declared: as ark's workers
            fleet = Fleet(here)

            async def told() -> None:
                async with asyncio.timeout(WITHIN_S):
                    await changed.wait()
                changed.clear()

            await fleet.agents.create("helper", model="one")
            await told()
            assert agents.config_for(task).model == "one"
            await fleet.agents.change("helper", model="two")
            await told()
            assert agents.config_for(task).model == "two"
            await fleet.agents.delete("helper")
            await told()
            with pytest.raises(AgentNotFound):
                agents.resolve(task)
        async with Definitions(there.state) as later:
            with pytest.raises(AgentNotFound):
                AgentDirectory(Roster(settings, later)).resolve(task)


async def test_a_task_right_after_its_agent_is_declared_finds_it(queue_url: str) -> None:
    """On a real server, with the worker's connections of its own: the worker looks into the store before it takes an
    agent to be missing or switched off, or runs a name that it has not heard of with its own agent."""
    async with await open_backend(queue_url) as workers, await open_backend(queue_url) as ours, fleet_on(workers):
        fleet = Fleet(ours)
        await fleet.llms.create(llm("model", "inside"))
        await fleet.apps.create("desk", llms=["model"])
        for number in range(10):
            await fleet.agents.create(f"agent-{number}", app="desk", is_active=number % 2 == 0)
            if number % 2:
                await fleet.agents.activate(f"agent-{number}")
            result = await ran(fleet, f"agent-{number}")
            assert (result.output, result.error) == ("inside", "")


async def test_a_running_task_keeps_the_agent_that_it_began_with(backend: Backend, tmp_path: Path) -> None:
    """The agent is deleted in the middle of a run: the run goes on with its tools and its model to its end."""
    tools = tmp_path / "tools.py"
    tools.write_text(
        "import asyncio\nfrom pathlib import Path\nfrom worker import tool\n\n@tool\nasync def search() -> str:\n"
        "    here = Path(__file__).parent\n    (here / 'begun').touch()\n"
        "    while not (here / 'go').exists():\n        await asyncio.sleep(0.01)\n    return 'found'\n"
    )
    async with fleet_on(backend, python_tools=(str(tools),)) as fleet:
        await fleet.llms.create(llm("model", "it is {last_result}", calls=("search", "search")))
        await fleet.apps.create("desk", llms=["model"], tools=["search"])
        await fleet.agents.create("helper", app="desk")
        handle = await fleet.submit("hello", agent="helper")
        async with asyncio.timeout(WITHIN_S):
            while not (tmp_path / "begun").exists():
                await asyncio.sleep(0.01)
        await fleet.agents.delete("helper")
        await fleet.apps.delete("desk")
        await until_output(fleet, "helper", lambda result: "no agent" in result.error)
        (tmp_path / "go").touch()
        result = await handle.result(timeout_s=WITHIN_S)
    assert result.output == "it is found"


@pytest.mark.parametrize("name", ["payroll", "PAYROLL", "search ", "pay*", "*", "nothing", "read_outputs"])
async def test_a_model_that_calls_a_tool_it_was_not_given_is_refused(
    backend: Backend, tmp_path: Path, name: str
) -> None:
    """By the tool's real name or by something like it: nothing runs, and the model hears of its own tools alone."""
    (tmp_path / "tools.py").write_text(TOOLS)
    async with fleet_on(backend, python_tools=(str(tmp_path / "tools.py"),)) as fleet:
        await fleet.llms.create(llm("model", calls=(name,)))
        await fleet.apps.create("desk", llms=["model"], tools=["search"])
        await fleet.agents.create("helper", app="desk")
        result = await until_output(fleet, "helper", lambda result: result.ok)
        override = await ran(fleet, "helper", tools=["*"])
    assert (
        result.output
        == override.output
        == f'tool "{name}" is not available to this agent; available: read_output, search'
    )
    assert not (tmp_path / "called").exists()


async def test_a_model_may_call_what_its_app_has(backend: Backend, tmp_path: Path) -> None:
    """The counterpart of the refusals, with a pattern."""
    (tmp_path / "tools.py").write_text(TOOLS)
    async with fleet_on(backend, python_tools=(str(tmp_path / "tools.py"),)) as fleet:
        await fleet.llms.create(llm("model", calls=("search",)))
        await fleet.apps.create("desk", llms=["model"], tools=["sea*"])
        await fleet.agents.create("helper", app="desk")
        result = await until_output(fleet, "helper", lambda result: result.ok)
    assert result.output == "found"
    assert set((tmp_path / "called").read_text().split()) == {"search"}


@pytest.mark.parametrize("tools", [["*"], ["search_*"], ["search_payroll"], []])
async def test_a_data_source_that_the_app_does_not_have_is_not_searched(backend: Backend, tools: list[str]) -> None:
    """By no pattern of tools, and by no name: the app's list of data sources alone opens one."""
    definitions = Definitions(backend.state)
    for slug in ("payroll", "manuals"):
        await definitions.datasources.create(Datasource(slug=slug, embed_model="lexical"))
    call = {"name": "search_payroll", "arguments": {"question": "Who earns what?"}}
    options = {"script": {"scenarios": [{"turns": [{"tool_calls": [call]}, {"text": "{last_result}"}]}]}}
    async with fleet_on(backend) as fleet:
        await fleet.llms.create(Llm(slug="model", provider="scripted", model="scripted", options=options))
        await fleet.apps.create("desk", llms=["model"], tools=tools, datasources=["manuals"])
        await fleet.agents.create("helper", app="desk")
        result = await ran(fleet, "helper", tools=["*"])
    assert "not allowed for this agent" in result.output or "not available to this agent" in result.output


async def test_an_agent_of_the_settings_is_held_to_its_tools_too(backend: Backend, tmp_path: Path) -> None:
    """`tools:` of shoal.yaml is kept when a tool is called, not only when tools are listed."""
    (tmp_path / "tools.py").write_text(TOOLS)
    options = script(calls=("payroll",))
    given = {"agent.tools": ("search",), "agent.options": options, "python_tools": (str(tmp_path / "tools.py"),)}
    async with fleet_on(backend, **given) as fleet:
        result = await ran(fleet, "")
    assert "not available" in result.output
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("overrides", [{"model": "house"}, {"provider": "openai"}, {"route": "elsewhere"}])
async def test_a_task_that_overrides_its_way_out_of_the_app_fails_for_good(
    backend: Backend, overrides: dict[str, str]
) -> None:
    """No model is called at all: there is no usage record, and no second attempt."""
    routes = {"elsewhere": [{"provider": "scripted", "model": "house"}]}
    async with fleet_on(backend, routes=routes) as fleet:
        await fleet.llms.create(llm("model", "inside"))
        await fleet.apps.create("desk", llms=["model"])
        await fleet.agents.create("helper", app="desk")
        await until_output(fleet, "helper", lambda result: result.output == "inside")
        used = len(await _records(backend))
        refused = await ran(fleet, "helper", **overrides)
    assert "app 'desk' has no" in refused.error
    assert len(await _records(backend)) == used
    assert [letter.attempt for letter in await backend.queue.dead_letters()][-1] == 1


async def test_a_route_of_the_app_may_be_taken(backend: Backend) -> None:
    """A model that is a route sends its calls there."""
    target = {"provider": "scripted", "model": "routed", "options": script("by route")}
    async with fleet_on(backend, routes={"main": [target]}) as fleet:
        await fleet.llms.create(Llm(slug="model", route="main"))
        await fleet.apps.create("desk", llms=["model"])
        await fleet.agents.create("helper", app="desk")
        await until_output(fleet, "helper", lambda result: result.output == "by route")


async def test_usage_is_the_agents_by_its_slug(backend: Backend) -> None:
    """Records name agent, model and tenant."""
    async with fleet_on(backend) as fleet:
        await fleet.llms.create(llm("model", "hi", namespace="acme"))
        await fleet.apps.create(App(slug="desk", namespace="acme", llms=("model",)))
        await fleet.agents.create(Agent(slug="helper", name="The Helper", namespace="acme", app="desk"))
        async with asyncio.timeout(WITHIN_S):
            while not (await ran(fleet, "helper", tenant="acme")).ok:
                await asyncio.sleep(0.02)
        assert "no agent" in (await ran(fleet, "helper", tenant="beta")).error
    [record] = [each for each in await _records(backend) if each.outcome is CallOutcome.COMPLETED]
    assert (record.agent, record.tenant, record.provider) == ("helper", "acme", "scripted")


async def test_an_agents_budget_is_its_own_and_live(backend: Backend) -> None:
    """It ends that agent's tasks and no other's; raised in the object, the next task runs."""
    async with fleet_on(backend) as fleet:
        await fleet.llms.create(llm("model", "hi", tokens=60))
        await fleet.apps.create("desk", llms=["model"])
        await fleet.agents.create("frugal", app="desk", budget={"period": "month", "tokens": 50})
        await fleet.agents.create("other", app="desk")
        await until_output(fleet, "frugal", lambda result: result.ok)
        refused = await until_output(fleet, "frugal", lambda result: not result.ok)
        assert 'budget "agent/frugal" of agent frugal is used up' in refused.error
        assert (await ran(fleet, "other")).ok
        await fleet.agents.change("frugal", budget={"period": "month", "tokens": 5000})
        await until_output(fleet, "frugal", lambda result: result.ok)
        await fleet.agents.change("frugal", budget={"period": "month", "tokens": 10})
        await until_output(fleet, "frugal", lambda result: not result.ok)
        await fleet.agents.change("frugal", budget={})
        await until_output(fleet, "frugal", lambda result: result.ok)


async def test_everybodys_agent_does_not_pay_for_a_tenants_own(backend: Backend) -> None:
    """Two agents of one slug: each budget is about its own agent's calls."""
    async with fleet_on(backend) as fleet:
        await fleet.llms.create(llm("model", "hi", tokens=60))
        await fleet.apps.create("desk", llms=["model"])
        await fleet.agents.create("twin", app="desk", budget={"tokens": 50})
        await fleet.agents.create(Agent(slug="twin", namespace="acme", app="desk", budget={"tokens": 130}))
        async with asyncio.timeout(WITHIN_S):
            while not (await ran(fleet, "twin", tenant="acme")).ok:
                await asyncio.sleep(0.02)
        assert (await ran(fleet, "twin", tenant="acme")).ok
        assert (await ran(fleet, "twin")).ok
        assert not (await ran(fleet, "twin")).ok
        assert (await ran(fleet, "twin", tenant="acme")).ok


async def _records(backend: Backend) -> list[Any]:
    return [record async for record in usage_records(backend.state)]


async def test_a_data_source_opens_no_other_tool_of_its_searchs_name(backend: Backend, tmp_path: Path) -> None:
    """A tool of the worker that has the name of a data source's search is not had with the data source."""
    (tmp_path / "tools.py").write_text(TOOLS.replace("def payroll", "def search_payroll"))
    await Definitions(backend.state).datasources.create(Datasource(slug="payroll", embed_model="lexical"))
    async with fleet_on(backend, python_tools=(str(tmp_path / "tools.py"),)) as fleet:
        await fleet.llms.create(llm("model", calls=("search_payroll",)))
        await fleet.apps.create("desk", llms=["model"], datasources=["payroll"])
        await fleet.agents.create("helper", app="desk")
        result = await ran(fleet, "helper", tools=["*"])
    assert result.output == 'tool "search_payroll" is not available to this agent; available: none'
    assert not (tmp_path / "called").exists()


async def test_a_subtask_stays_within_the_app(backend: Backend) -> None:
    """What an agent submits is run by itself: the worker's own agent, which has no fence, hears nothing of it."""
    call = {"name": "submit_subtask", "arguments": {"prompt": "dig"}}
    answers = [
        {"match": "dig", "turns": [{"text": "dug within"}]},
        {"turns": [{"tool_calls": [call]}, {"text": "{last_result}"}]},
    ]
    async with fleet_on(backend) as fleet:
        options = {"script": {"scenarios": answers}}
        await fleet.llms.create(Llm(slug="model", provider="scripted", model="scripted", options=options))
        await fleet.apps.create("desk", llms=["model"], tools=["*"])
        await fleet.agents.create("helper", app="desk")
        result = await ran(fleet, "helper")
        subtask = fleet.task(result.output.rpartition(" ")[2])
        assert (await subtask.result(timeout_s=WITHIN_S)).output == "dug within"
    assert {record.agent for record in await _records(backend)} == {"helper"}
