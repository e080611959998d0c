"""`AGENT_TEAM_ROUTES`: roles that have queues of their own, and workers that are those roles."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from queue_backends import Backend, Task, open_backend
from queue_backends.memory.store import Store
from tests.teams.roles.team_fleet import (
    WITHIN_S,
    Fleet,
    calls,
    dynamic,
    fleet,
    plan_of,
    says,
    scripted,
    worker_settings,
)
from worker.assembly import open_worker
from worker.teams.plan import Role
from worker.teams.routed_queues import RoutedQueues


def script(*turns: dict[str, Any]) -> str:
    """As `SHOAL_PROVIDER_OPTIONS` has it."""
    return json.dumps({"script": {"scenarios": [{"turns": list(turns)}]}})


@asynccontextmanager
async def two_fleets(*turns: dict[str, Any], name: str) -> AsyncIterator[tuple[Fleet, Fleet]]:
    """A lead on one queue whose agent takes these turns, and a writer on another."""
    routes = json.dumps({"writer": f"memory://{name}-writer"})
    options = {
        "lead": {"AGENT_TEAM_ROUTES": routes, "SHOAL_PROVIDER_OPTIONS": script(*turns)},
        "writer": {"SHOAL_PROVIDER_OPTIONS": script(says("wrote {prompt}"))},
    }
    async with AsyncExitStack() as stack:
        fleets = []
        for role, environment in options.items():
            backend = await stack.enter_async_context(await open_backend(f"memory://{name}-{role}"))
            await stack.enter_async_context(open_worker(worker_settings(environment, slots=1), backend))
            fleets.append(Fleet(backend))
        yield fleets[0], fleets[1]


async def test_delegating_to_a_role_with_a_queue_of_its_own() -> None:
    """The task goes there, as any engine would submit it; the answer is its id."""
    turns = (calls("delegate", role="writer", prompt="a poem"), says("{results}"))
    async with two_fleets(*turns, name="delegating") as (lead, writer):
        task_id = await lead.backend.queue.submit(Task(prompt="go", tenant="acme"))
        said = (await lead.result(task_id)).output
        child_id = said.removeprefix('task delegated to role "writer" with id: ')
        result = await writer.result(child_id)

    assert result.output == "wrote a poem"


async def test_results_are_looked_for_in_the_queue_that_the_task_is_in() -> None:
    """Also where another task there, or here, happens to have the same id; and with a tenant."""
    tasks = [{"role": "writer", "prompt": "a poem"}, {"role": "writer", "prompt": "a song"}]
    turns = (calls("spawn_and_collect", tasks=tasks), says("{last_result}"))
    async with two_fleets(*turns, name="results") as (lead, _):
        task_id = await lead.backend.queue.submit(Task(prompt="go", tenant="acme"))
        said = json.loads((await lead.result(task_id)).output)

    assert [each["output"] for each in said["completed"].values()] == ["wrote a poem", "wrote a song"]


async def test_an_unknown_role_hears_of_the_routes() -> None:
    """ark's text."""
    async with two_fleets(calls("delegate", role="boss", prompt="p"), says("{results}"), name="unknown") as (lead, _):
        said = await lead.result(await lead.backend.queue.submit(Task(prompt="go")))

    assert said.output == 'delegate: unknown role "boss"; available: writer'


async def test_a_queue_that_cannot_be_opened() -> None:
    """ark's text, without the password in the URL."""
    routes = json.dumps({"writer": "redis://:s3cret@127.0.0.1:9/0"})
    turns = script(calls("delegate", role="writer", prompt="p"), says("{results}"))
    settings = worker_settings({"AGENT_TEAM_ROUTES": routes, "SHOAL_PROVIDER_OPTIONS": turns})
    async with await open_backend("memory://") as backend, open_worker(settings, backend):
        result = await backend.queue.wait(await backend.queue.submit(Task(prompt="go")), WITHIN_S)

    assert result.output.startswith('delegate: submitting to role "writer": ')
    assert "s3cret" not in result.output


async def test_a_teams_own_roles_are_not_routed() -> None:
    """The plan says who its roles are; any worker of the fleet is them."""
    boss = Role(
        name="lead",
        can_delegate=("writer",),
        config=scripted(calls("spawn_and_collect", tasks=[{"role": "writer", "prompt": "p"}]), says("{last_result}")),
    )
    plan = plan_of(dynamic(boss, Role(name="writer", config=scripted(says("the plan's")))))
    async with two_fleets(says("nothing"), name="own") as (lead, _):
        state = await lead.run(plan)

    assert "the plan's" in state.output


async def test_a_queue_is_opened_once_and_closed_at_the_end() -> None:
    """Roles that share a URL share the connection."""
    opened: list[str] = []
    closed: list[str] = []

    async def open_url(url: str) -> Backend:
        opened.append(url)
        backend = await open_backend(url)
        close = backend.close

        async def note() -> None:
            closed.append(url)
            await close()

        backend.close = note  # type: ignore[method-assign]  # to see that it is closed
        return backend

    async with RoutedQueues({"a": "memory://x", "b": "memory://x", "c": "memory://y"}, open_url) as routes:
        queues = [await routes.queue(role) for role in ("a", "b", "a")]
        assert queues[0] is queues[1] is queues[2]
        assert routes.roles == ("a", "b", "c")

    assert opened == closed == ["memory://x"]


async def test_tasks_of_the_same_id_in_two_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids are unique in one queue alone: on Redis they are made of the time. Each result is told of its own task."""
    taken: Counter[Store] = Counter()

    def new_id(store: Store) -> str:
        taken[store] += 1
        return f"1-{taken[store]}"

    monkeypatch.setattr(Store, "new_id", new_id)
    prompts = {"writer": ["a poem", "a song", "a play"], "": ["mine"]}
    tasks = [{"role": role, "prompt": prompt} for role, asked in prompts.items() for prompt in asked]
    turns = [calls("spawn_and_collect", tasks=tasks), says("{last_result}")]
    scenarios = [{"match": "mine", "turns": [says("did {prompt}")]}, {"turns": turns}]
    environment = {
        "AGENT_TEAM_ROUTES": json.dumps({"writer": "memory://same-ids-writer"}),
        "SHOAL_PROVIDER_OPTIONS": json.dumps({"script": {"scenarios": scenarios}}),
    }
    writer = worker_settings({"SHOAL_PROVIDER_OPTIONS": script(says("wrote {prompt}"))})
    async with (
        fleet(environment, url="memory://same-ids", slots=1) as there,
        await open_backend("memory://same-ids-writer") as writers,
        open_worker(writer, writers),
    ):
        parent = await there.backend.queue.submit(Task(prompt="go"))
        said = json.loads((await there.result(parent)).output)

    assert any(task_id.startswith(":") for task_id in said["completed"]), "there was nothing to mix up"
    outputs = {each["prompt"]: each["output"] for each in said["completed"].values()}
    assert outputs == {**{each: f"wrote {each}" for each in prompts["writer"]}, "mine": "did mine"}
