"""What an agent is given to search with, and what it is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from providers import AgentConfig, register
from providers.scripted import ScriptedProvider
from queue_backends import Backend, Task, TaskResult, open_backend, register_backend
from queue_backends.memory import open_backend as open_memory
from worker.agents import Agent, App, Llm
from worker.assembly import open_worker
from worker.datasources.documents import Document
from worker.datasources.model import Datasource
from worker.datasources.opening import open_datasources
from worker.datasources.search_spec import search_spec, tool_name
from worker.definitions import Definitions
from worker.live_settings import LiveSettings
from worker.settings import Settings
from worker.usage import UsageReport

WITHIN_S = 30.0


def searching(tool: str) -> AgentConfig:
    """A worker's own agent that calls this tool and repeats what it was told."""
    turns = [{"tool_calls": [{"name": tool, "arguments": {"question": "who barks?"}}]}, {"text": "{last_result}"}]
    script: dict[str, Any] = {"scenarios": [{"turns": turns}]}
    return AgentConfig(model="mock", provider="scripted", options={"script": script})


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A queue in memory, with two data sources of one name and one of another."""
    register_backend("memory", open_memory)
    register("scripted", ScriptedProvider)
    async with await open_backend("memory://") as opened, Definitions(opened.state) as definitions:
        for source in (
            Datasource(slug="pets", embed_model="lexical", description="All about pets."),
            Datasource(slug="pets", namespace="acme", embed_model="lexical"),
            Datasource(slug="other", embed_model="lexical"),
        ):
            await definitions.datasources.create(source)
        live = LiveSettings(opened.state)
        async with open_datasources(Settings(agent=searching("")), opened.state, live, definitions) as datasources:
            dog = Document(id="dog.md", text="Dogs bark at the postman.", title="Dogs")
            await datasources.ingest("pets", [dog])
            await datasources.ingest("pets", [msgspec.structs.replace(dog, text="Acme's dogs bark.")], namespace="acme")
        await definitions.llms.create(
            Llm(slug="main", provider="scripted", model="mock", options=searching("search_pets").options)
        )
        await definitions.apps.create(App(slug="shop", llms=("main",), datasources=("pets",)))
        yield opened


async def answer(backend: Backend, agent: Agent | None, tool: str, *, tenant: str = "") -> TaskResult:
    """What a task of this agent (None: of the worker's own) comes to."""
    async with Definitions(backend.state) as definitions:
        if agent is not None:
            await definitions.agents.create(agent)
    settings = Settings(agent=searching(tool), retry_base_s=0.05, health_port=0, max_retries=0)
    async with asyncio.timeout(WITHIN_S), open_worker(settings, backend):
        task = Task(prompt="who barks?", agent=agent.slug if agent else "", tenant=tenant)
        return await backend.queue.wait(await backend.queue.submit(task), WITHIN_S)


async def test_an_agent_searches_its_data_source(backend: Backend) -> None:
    """The model's call finds the passage and names its document; what it embedded is on the task's account."""
    result = await answer(backend, Agent(slug="vet", datasources=("pets",)), "search_pets")
    assert result.output.startswith("[1] dog.md | Dogs (score ")
    assert result.output.endswith("Dogs bark at the postman.")
    embedded = [each for each in await UsageReport(backend.state).recent() if each.task_id == result.task_id]
    assert [each.model for each in embedded if each.model == "lexical"] == ["lexical"]
    assert {each.agent for each in embedded} == {"vet"}


async def test_an_agent_of_an_app_has_its_apps(backend: Backend) -> None:
    """All of the app's data sources, without naming them, though the app has no tools at all."""
    result = await answer(backend, Agent(slug="clerk", app="shop"), "search_pets")
    assert result.output.endswith("Dogs bark at the postman.")


async def test_a_tenants_agent_searches_its_own(backend: Backend) -> None:
    """A namespace's data source hides everybody's of the same name."""
    agent = Agent(slug="vet", namespace="acme", datasources=("pets",))
    result = await answer(backend, agent, "search_pets", tenant="acme")
    assert result.output.endswith("Acme's dogs bark.")


@pytest.mark.parametrize("agent", [None, Agent(slug="vet", datasources=("other",)), Agent(slug="vet", tools=("*",))])
async def test_no_agent_searches_what_it_is_not_bound_to(backend: Backend, agent: Agent | None) -> None:
    """Neither by a pattern that fits all tools nor by asking for it all the same."""
    result = await answer(backend, agent, "search_pets")
    assert "barks" not in result.output
    assert "bark at" not in result.output
    assert "datasource not allowed for this agent" in result.output or "not available" in result.output


async def test_data_sources_come_and_go_while_a_worker_runs(backend: Backend) -> None:
    """A new one can be searched without a restart, and one that is deleted or switched off cannot."""
    settings = Settings(agent=searching("search_late"), retry_base_s=0.05, health_port=0, max_retries=0)
    async with asyncio.timeout(WITHIN_S), open_worker(settings, backend), Definitions(backend.state) as definitions:

        async def until(said: str) -> None:
            output = ""
            while said not in output:
                task_id = await backend.queue.submit(Task(prompt="?", agent="vet"))
                result = await backend.queue.wait(task_id, WITHIN_S)
                output = result.output + result.error

        await definitions.datasources.create(Datasource(slug="late", embed_model="lexical"))
        await definitions.agents.create(Agent(slug="vet", datasources=("late",)))
        await until("nothing was found")
        await definitions.datasources.change("late", lambda each: msgspec.structs.replace(each, is_active=False))
        await until("not available to this agent")
        await definitions.datasources.delete("late")
        await until("not found; available")


def test_names_that_vendors_take() -> None:
    """No dots, no more than 64 characters, and no two slugs with one name."""
    slugs = ["docs", "a.b", "a_b", "a-b", "x" * 63, "x" * 62 + "y"]
    names = [tool_name(slug) for slug in slugs]
    assert names[0] == "search_docs"
    assert len(set(names)) == len(slugs)
    assert all(len(name) <= 64 and name.replace("_", "").replace("-", "").isalnum() for name in names)


def test_what_a_model_is_told() -> None:
    """The data source's name and what can be found there."""
    spec = search_spec(Datasource(slug="pets", name="Pets", description="All about pets."))
    assert "'Pets': All about pets." in spec.description
    assert spec.idempotent
