"""Memories that are conversations: in-context within a run, redis from run to run."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from queue_backends import BackendOptions, Task, open_backend
from tests.servers import Server, fresh_stream
from tests.teams.memory.noting import Noting, config, marks, role, team
from tests.teams.roles.team_fleet import fleet
from worker.teams.memory import notebook
from worker.teams.memory.keys import run_prefix
from worker.teams.memory.memories import Memories
from worker.teams.memory.notebook import MOST_CHARS, MOST_ENTRY_CHARS, Notebook
from worker.teams.memory.shortening import MARK
from worker.teams.memory.work import Work, work_of
from worker.teams.plan import Loop, MemorySpec, Role, Step
from worker.teams.run_state import Phase

IN_CONTEXT = MemorySpec(name="m")
REDIS = MemorySpec(name="m", backend="redis")


def work(number: object, prompt: str = "ask") -> Work:
    """A piece of work of its own."""
    return work_of(Task(id=f"t{number}", prompt=f"{prompt} {number}"), marks())


async def told(memory: Notebook) -> list[str]:
    """What a further piece of work would be told."""
    return [message["content"] for message in (await memory.recall(work("new"))).history]


async def test_a_loop_remembers_its_iterations(model: Noting) -> None:
    """Each iteration goes on with the conversation of those before it."""
    step = Step(name="s", role="a", inputs={"task": "{{ .input.task }}"}, loop=Loop(condition="true", max_iterations=3))
    async with fleet() as there:
        run = await there.run(team(role("a", IN_CONTEXT), steps=(step,)))
        assert run.phase is Phase.SUCCEEDED, run.message
    asked = model.conversations[0][0]
    assert [len(each) for each in model.conversations] == [1, 3, 5]
    assert model.conversations[2][:2] == (asked, "assistant: re task: go\n")


async def test_steps_of_a_role_share_and_others_do_not(model: Noting) -> None:
    """The second step of a role knows of the first; another role, one without memory, and the next run do not."""
    steps = (
        Step(name="one", role="a", inputs={"n": "1"}),
        Step(name="two", role="b", inputs={"n": "2"}, depends_on=("one",)),
        Step(name="three", role="c", inputs={"n": "3"}, depends_on=("two",)),
        Step(name="four", role="a", inputs={"n": "4"}, depends_on=("three",)),
    )
    plan = team(role("a", IN_CONTEXT), role("b", IN_CONTEXT), role("c", None), steps=steps)
    async with fleet() as there:
        for _ in range(2):
            assert (await there.run(plan)).phase is Phase.SUCCEEDED
    assert model.conversations[:4] == model.conversations[4:]
    assert [len(each) for each in model.conversations[:4]] == [1, 1, 1, 3]
    assert [each.strip() for each in model.conversations[3]] == ["user: n: 1", "assistant: re n: 1", "user: n: 4"]


async def test_what_a_run_remembers_goes_with_it(model: Noting) -> None:
    """Whoever forgets a run forgets that too, and nothing of a run whose name begins alike."""
    async with fleet() as there:
        ids = [await there.runs.start(team(role("a", IN_CONTEXT)), {"task": "go"}, run_id=name) for name in ("r", "r1")]
        for run_id in ids:
            await there.drive(run_id)
        await there.runs.forget("r")
        kept = {run: [key async for key, _ in there.backend.state.scan(run_prefix(run))] for run in ids}
    assert (len(kept["r"]), len(kept["r1"])) == (0, 1)


async def test_an_answer_that_was_repaired(model: Noting) -> None:
    """It is remembered once: what the step was asked, and the answer that counts."""
    schema = {"type": "object", "required": ["n"]}
    script = {"does not fit": [{"text": '{"n": 1}'}], "": [{"text": "no JSON"}]}
    step = Step(name="s", role="a", inputs={"n": "1"}, output_schema=schema)
    plan = team(Role(name="a", memory=REDIS, config=config(script)), steps=(step,))
    async with fleet() as there:
        first = await there.run(plan)
        assert first.phase is Phase.SUCCEEDED, first.message
        await there.run(plan)
    second = model.conversations[2]
    assert second[1] == 'assistant: {"n": 1}'
    assert second[0].startswith("user: n: 1")
    assert len(second) == 3


async def test_redis_remembers_from_run_to_run(model: Noting) -> None:
    """Per tenant, name and role."""
    plan = team(role("a", REDIS))
    async with fleet() as there:
        await there.run(plan, {"task": "first"}, tenant="acme")
        await there.run(plan, {"task": "second"}, tenant="acme")
        await there.run(plan, {"task": "third"}, tenant="other")
    assert [len(each) for each in model.conversations] == [1, 3, 1]
    assert "first" in model.conversations[1][0]


async def test_one_way(model: Noting) -> None:
    """A role may fill a memory without being told of it, or be told of it without adding to it."""
    step = Step(name="s", role="a", inputs={"n": "1"})
    async with fleet() as there:
        for spec in (replace(REDIS, recalls=False), replace(REDIS, recalls=False), replace(REDIS, keeps=False), REDIS):
            await there.run(team(role("a", spec), steps=(step,)))
    assert [len(each) for each in model.conversations] == [1, 1, 5, 5]


async def test_no_name_poses_as_two() -> None:
    """Slashes in the names of tenants, memories and roles do not lead into another's memory."""
    async with (
        await open_backend("memory://") as backend,
        Memories(backend.state, options=BackendOptions()) as memories,
    ):

        async def told(tenant: str, name: str, role_name: str, *, keeps: bool = False) -> bool:
            task = Task(id="t" if keeps else "u", prompt="p", tenant=tenant)
            mine = Role(name=role_name, memory=MemorySpec(name=name, backend="redis"))
            if keeps:
                await memories.keep(task, marks(role=role_name), mine, "secret")
            return bool(await memories.recall(replace(task, id="u"), marks(role=role_name), mine))

        assert await told("a", "b/c", "d", keeps=True)
        for names in (("a/b", "c", "d"), ("a", "b", "c/d"), ("a", "b%2Fc", "d"), ("A", "b/c", "d"), ("", "a/b/c", "d")):
            assert not await told(*names)


async def test_two_fleets_share_a_store(model: Noting, valkey_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory elsewhere is at the URL that the environment has, for whoever names it."""
    monkeypatch.setenv("TEAM_REDIS_URL", valkey_server.url(fresh_stream()))
    plan = team(role("a", MemorySpec(name="m", backend="redis", url_env="TEAM_REDIS_URL", ttl_s=60)))
    for name in ("one", "two"):
        async with fleet(url=f"memory://{name}") as there:
            assert (await there.run(plan, {"task": name})).phase is Phase.SUCCEEDED
    assert [len(each) for each in model.conversations] == [1, 3]


async def test_at_most_so_many_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than `max_entries` the oldest go; an entry goes after `ttl_s`, though others came later."""
    now = 1_000.0
    monkeypatch.setattr(notebook, "time", SimpleNamespace(time=lambda: now))
    async with await open_backend("memory://") as backend:
        memory = Notebook(backend.state, "k", keep_s=60, ttl_s=10, max_entries=2)
        for number in range(3):
            await memory.keep(work(number), f"answer {number}")
            now += 4
        assert await told(memory) == ["ask 1", "answer 1", "ask 2", "answer 2"]
        now += 4
        assert await told(memory) == ["ask 2", "answer 2"]
        now += 4
        assert await told(memory) == []


async def test_it_does_not_grow_without_bounds() -> None:
    """Long texts lose their middle, and the oldest entries go."""
    async with await open_backend("memory://") as backend:
        memory = Notebook(backend.state, "k", keep_s=60)
        for number in range(12):
            await memory.keep(work(number), "x" * 50_000 + "end")
        kept = await told(memory)
    assert sum(map(len, kept)) <= MOST_CHARS
    assert len(kept) == 14
    assert len(kept[1]) == MOST_ENTRY_CHARS
    assert MARK in kept[1]
    assert kept[1].endswith("xend")


async def test_many_at_once(valkey_server: Server) -> None:
    """Whoever writes at the same time loses nothing, and none twice."""
    async with (
        await open_backend(valkey_server.url(fresh_stream())) as one,
        await open_backend("memory://") as two,
    ):
        for state in (one.state, two.state):
            memory = Notebook(state, "k", keep_s=60)
            async with asyncio.TaskGroup() as group:
                for number in range(8):
                    group.create_task(memory.keep(work(number), str(number)))
                    group.create_task(memory.keep(work(number), str(number)))
            assert sorted((await told(memory))[1::2]) == [str(number) for number in range(8)]


async def test_work_that_is_done_again() -> None:
    """It is not told of its own answer; the latest one stands in the place of the first."""
    async with await open_backend("memory://") as backend:
        memory = Notebook(backend.state, "k", keep_s=60)
        await memory.keep(work(1), "draft")
        await memory.keep(work(2), "other")
        assert [message["content"] for message in (await memory.recall(work(1))).history] == ["ask 2", "other"]
        await memory.keep(work(1), "final")
        assert await told(memory) == ["ask 1", "final", "ask 2", "other"]


async def test_nothing_is_no_memory() -> None:
    """An empty answer, or one to nothing, is not kept: vendors refuse empty messages."""
    async with await open_backend("memory://") as backend:
        memory = Notebook(backend.state, "k", keep_s=60)
        await memory.keep(work(1), " \n")
        await memory.keep(work_of(Task(id="t", prompt=""), marks()), "answer")
        assert await told(memory) == []


@pytest.mark.parametrize(
    ("task", "fields", "expected"),
    [
        (Task(id="t", prompt="p", idempotency_key="team:r1:s:2:1:step"), {}, ("team:r1:s:2", "p")),
        (
            Task(
                id="u",
                prompt="fix it",
                idempotency_key="team:r1:s:2:1:repair",
                history=({"role": "user", "content": "p"}, {"role": "assistant", "content": "bad"}),
            ),
            {"purpose": "repair"},
            ("team:r1:s:2", "p"),
        ),
        (Task(id="c", prompt="p", idempotency_key="mine"), {"purpose": "delegated", "depth": 1}, ("c", "p")),
        (Task(id="c", prompt="p", idempotency_key="team:r1:s:2:1:step"), {"depth": 1}, ("c", "p")),
    ],
)
def test_which_work_a_task_does(task: Task, fields: dict[str, Any], expected: tuple[str, str]) -> None:
    """All tries and repairs of a step are one work; each delegated task is its own."""
    found = work_of(task, marks(**fields))
    assert (found.id, found.asked) == expected
