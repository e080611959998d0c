"""What a role may do with its team: texts, limits, results, and who may see them."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from queue_backends import Priority, Task
from tests.teams.roles.team_fleet import Fleet, by_prompt, calls, dynamic, fleet, plan_of, says, scripted
from worker import parking
from worker.agents.model import Agent
from worker.definitions import Definitions
from worker.teams import collecting
from worker.teams.child_limits import MOST_CHILDREN
from worker.teams.child_summary import summary_prompt
from worker.teams.delegation import Wanted, call_of
from worker.teams.plan import InputSpec, Plan, Role, Step, Team
from worker.teams.run_state import ChildState, Phase
from worker.teams.team_tools import queue_tools, team_tools
from worker.teams.waits import Waits

ID = r"[0-9A-Za-z.:_-]+"


def lead(*turns: dict[str, Any], delegates: tuple[str, ...] = ("w", "x")) -> Role:
    """An entry role that takes these turns."""
    return Role(name="lead", config=scripted(*turns), can_delegate=delegates)


def crew(*turns: dict[str, Any], **fields: Any) -> Plan:
    """An entry role with these turns, and two helpers."""
    return plan_of(
        dynamic(
            lead(*turns),
            Role(name="w", description="Writes.", config=scripted(says("wrote {prompt}"))),
            Role(name="x", config=scripted({"fault": {"kind": "refused", "message": "no way"}})),
            **fields,
        )
    )


async def said_by(*turns: dict[str, Any], **fields: Any) -> str:
    """What the tools of one task have told its model."""
    async with fleet({"AGENT_MAX_RETRIES": "0"}) as there:
        return (await there.task(crew(*turns, says("{results}"), **fields), "lead")).output


# What the model is told of


def test_the_tools_of_a_role_that_may_delegate() -> None:
    """In ark's order; the roles that it may delegate to are named, with what they are for, and no others."""
    team = crew().team
    tools = team_tools(team, team.roles[0])

    assert [tool.spec.name for tool in tools] == ["submit_subtask", "collect_results", "spawn_and_collect", "delegate"]
    assert tools[3].spec.description.endswith("Roles: w: Writes.; x")
    assert all(tool.spec.idempotent for tool in tools)
    assert team_tools(team, team.roles[1]) == []


def test_the_schemas_are_arks() -> None:
    """Names, and what is required."""
    schemas = {tool.spec.name: tool.spec.input_schema for tool in queue_tools(["w"])}

    assert list(schemas) == ["submit_subtask", "collect_results", "spawn_and_collect", "delegate"]
    assert schemas["delegate"]["required"] == ["role", "prompt"]
    assert schemas["collect_results"]["required"] == ["task_ids"]
    assert set(schemas["collect_results"]["properties"]) == {"task_ids", "timeout_seconds"}
    assert schemas["spawn_and_collect"]["required"] == ["tasks"]
    assert set(schemas["spawn_and_collect"]["properties"]["tasks"]["items"]["properties"]) == {"prompt", "role"}


def test_without_routes_a_plain_agent_cannot_delegate() -> None:
    """ark: the tool is there only if there are roles."""
    assert [tool.spec.name for tool in queue_tools([])] == ["submit_subtask", "collect_results", "spawn_and_collect"]


# Texts


async def test_delegate_answers_with_the_id() -> None:
    """At once, whatever becomes of the task."""
    said = await said_by(calls("delegate", role="w", prompt="p"))

    assert re.fullmatch(rf'task delegated to role "w" with id: {ID}', said)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"role": " ", "prompt": "p"}, "delegate: role must not be empty"),
        ({"role": "w", "prompt": " "}, "delegate: prompt must not be empty"),
        ({"role": "lead", "prompt": "p"}, 'delegate: unknown role "lead"; available: w, x'),
    ],
)
async def test_what_delegate_refuses(arguments: dict[str, str], text: str) -> None:
    """ark's texts."""
    assert await said_by(calls("delegate", **arguments)) == text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"tasks": [{"prompt": " "}]}, "spawn_and_collect: prompt must not be empty"),
        (
            {"tasks": [{"prompt": "p"}, {"prompt": "p", "role": "boss"}]},
            'spawn_and_collect: unknown role "boss"; available: w, x',
        ),
    ],
)
async def test_what_spawn_and_collect_refuses(arguments: dict[str, Any], text: str) -> None:
    """ark's texts; nothing is submitted."""
    assert await said_by(calls("spawn_and_collect", **arguments)) == text


async def test_collect_results_wants_ids() -> None:
    """ark's text."""
    assert await said_by(calls("collect_results", task_ids=[])) == "collect_results: task_ids is required"


async def test_results_come_back_with_errors_as_such() -> None:
    """Completed and failed ones, in the order in which they were asked for, as compact JSON."""
    tasks = [{"role": "w", "prompt": "a"}, {"role": "x", "prompt": "b"}]
    async with fleet({"AGENT_MAX_RETRIES": "0"}) as there:
        state = await there.run(crew(calls("spawn_and_collect", tasks=tasks), says("{last_result}")))
    said = json.loads(state.output)

    assert list(said) == ["completed", "pending"]
    assert [(each["prompt"], each["output"]) for each in said["completed"].values()] == [
        ("a", "wrote a"),
        ("b", "[error] no way"),
    ]
    assert said["pending"] == []
    assert '": "' not in state.output


async def test_what_is_not_ready_in_time_is_pending() -> None:
    """The rest is there."""
    slow = Role(name="slow", config=scripted({"text": "late", "delay_s": 60}))
    tasks = [{"role": "w", "prompt": "a"}, {"role": "slow", "prompt": "b"}]
    boss = lead(
        calls("spawn_and_collect", tasks=tasks, timeout_seconds=0.5), says("{last_result}"), delegates=("w", "slow")
    )
    plan = plan_of(dynamic(boss, Role(name="w", config=scripted(says("wrote"))), slow))
    async with fleet() as there:
        said = json.loads((await there.task(plan, "lead")).output)

    assert [each["output"] for each in said["completed"].values()] == ["wrote"]
    assert len(said["pending"]) == 1


async def test_collecting_again_gives_the_rest() -> None:
    """`submit_subtask` and `delegate`, then `collect_results` for what they gave."""
    boss = Role(
        name="lead",
        can_delegate=("w",),
        config=by_prompt(
            {"sub": [says("sub done")], "": [calls("submit_subtask", prompt="sub it"), says("{results}")]}
        ),
    )
    async with fleet() as there:
        plan = plan_of(dynamic(boss, Role(name="w")))
        said = (await there.task(plan, "lead", "begin")).output
        task_id = said.removeprefix("subtask submitted with id: ")
        result = await there.result(task_id)

    assert result.output == "sub done"


async def test_a_calls_id_may_come_again_for_something_else() -> None:
    """Some models number their calls, and a task may be tried anew: an earlier try has waited for something else."""
    plan = crew(calls("spawn_and_collect", tasks=[{"role": "w", "prompt": "a"}]), says("{last_result}"))
    async with fleet() as there:
        await there.backend.queue.pause()
        task_id = await there.backend.queue.submit(await there.marked(plan, "lead"))
        earlier = call_of("call_0_0", [Wanted(prompt="other", role="w")])
        await Waits(there.backend.state).begin(task_id, earlier, ["1-0"])
        await there.backend.queue.resume()
        said = json.loads((await there.result(task_id)).output)

    assert [each["output"] for each in said["completed"].values()] == ["wrote a"]


# What a delegated task is


async def test_a_delegated_task_is_its_parents_child() -> None:
    """Tenant, priority and deadline are the parent's, and the log of the run knows of it."""
    plan = crew(calls("delegate", role="w", prompt="p" * 600), says("{results}"))
    async with fleet() as there:
        task = await there.marked(plan, "lead", tenant="acme", priority=Priority.HIGH, deadline=4e9)
        task_id = await there.backend.queue.submit(task)
        said = await there.result(task_id)
        child_id = said.output.rpartition(" ")[2]
        await there.result(child_id)
        run = await there.runs.read(task.meta["run_name"])

    [child] = run.state.children
    assert (child.task_id, child.parent, child.role, child.depth) == (child_id, task_id, "w", 1)
    assert child.prompt == "p" * 500 + "…"
    assert child.phase is Phase.SUCCEEDED
    assert child.output == "wrote " + "p" * 600
    assert child.usage.total_tokens


async def test_the_child_carries_what_its_parent_has() -> None:
    """On the wire."""
    plan = crew(calls("delegate", role="w", prompt="p"), says("{results}"))
    async with fleet() as there:
        task = await there.marked(plan, "lead", tenant="acme", priority=Priority.HIGH, deadline=4e9, session_id="s")
        await there.backend.queue.pause()
        parent_id = await there.backend.queue.submit(task)
        seen: list[Task] = []
        submit = there.backend.queue.submit

        async def note(task: Task, **named: Any) -> str:
            seen.append(task)
            return await submit(task, **named)

        there.backend.queue.submit = note  # type: ignore[method-assign]  # to see what is submitted
        await there.backend.queue.resume()
        await there.result(parent_id)

    [child] = seen
    assert (child.tenant, child.priority, child.deadline, child.session_id) == ("acme", Priority.HIGH, 4e9, "s")
    assert child.idempotency_key.startswith(f"{parent_id}:")
    assert child.meta == {
        **task.meta,
        "team_role": "w",
        "team_parent": parent_id,
        "team_depth": "1",
        "team_purpose": "delegated",
    }


async def test_delegation_goes_so_deep_and_no_deeper() -> None:
    """Roles that delegate to each other end at the team's limit, which the model is told of."""
    boss = Role(
        name="lead",
        can_delegate=("lead",),
        config=scripted(calls("spawn_and_collect", tasks=[{"role": "lead", "prompt": "on"}]), says("<{last_result}>")),
    )
    async with fleet(slots=1) as there:
        state = await there.run(plan_of(dynamic(boss, max_depth=3)))

    assert state.phase is Phase.SUCCEEDED
    assert sorted(child.depth for child in state.children) == [1, 2, 3]
    assert "the team's depth limit of 3 is reached" in state.output


async def test_a_run_delegates_only_so_many_tasks() -> None:
    """A model in a frenzy is stopped, and told."""
    tasks = [{"role": "w", "prompt": str(number)} for number in range(MOST_CHILDREN + 1)]
    async with fleet() as there:
        state = await there.run(crew(calls("spawn_and_collect", tasks=tasks), says("{last_result}")))

    assert state.children == ()
    assert state.output.startswith(f"spawn_and_collect: a run may delegate {MOST_CHILDREN} tasks")


@pytest.fixture
def nobody_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits goes on because he is woken, not because he has looked by himself."""
    monkeypatch.setattr(collecting, "LOOK_AGAIN_S", 3600.0)
    monkeypatch.setattr(parking, "FIRST_LOOK_S", 3600.0)
    monkeypatch.setattr(parking, "LONGEST_LOOK_S", 3600.0)


@pytest.mark.usefixtures("nobody_looks_again")
async def test_three_levels_on_one_slot() -> None:
    """Whoever waits holds no slot: the only one is free for those that are waited for."""
    top = lead(calls("spawn_and_collect", tasks=[{"role": "mid", "prompt": "a"}]), says("top {last_result}"))
    top = Role(name="lead", config=top.config, can_delegate=("mid",))
    mid = Role(
        name="mid",
        can_delegate=("low",),
        config=scripted(
            calls("spawn_and_collect", tasks=[{"role": "low", "prompt": "b"}, {"role": "low", "prompt": "c"}]),
            says("mid {last_result}"),
        ),
    )
    low = Role(name="low", config=scripted({"text": "low {prompt}", "delay_s": 0.1}))
    async with fleet(slots=1) as there:
        state = await there.run(plan_of(dynamic(top, mid, low)))

    assert state.phase is Phase.SUCCEEDED
    assert "low b" in state.output
    assert "low c" in state.output
    assert {child.phase for child in state.children} == {Phase.SUCCEEDED}


# Results that nobody has asked for


async def test_results_that_were_never_collected_are_told_once() -> None:
    """The entry role answers before its helper has: its conversation goes on with the results, and then it is over."""
    boss = Role(
        name="lead",
        can_delegate=("w",),
        config=by_prompt(
            {
                "that you delegated": [says("final: {prompt}")],
                "": [calls("delegate", role="w", prompt="dig"), says("I have delegated it.")],
            }
        ),
    )
    async with fleet() as there:
        state = await there.run(plan_of(dynamic(boss, Role(name="w", config=scripted(says("dug"))))))

    assert state.phase is Phase.SUCCEEDED
    assert state.output.startswith("final: ")
    assert "asked: dig\ndug" in state.output


async def test_results_that_were_collected_are_not_told_again() -> None:
    """One model call for the answer, none for a summary."""
    boss = lead(calls("spawn_and_collect", tasks=[{"role": "w", "prompt": "a"}]), says("done"))
    async with fleet() as there:
        plan = plan_of(dynamic(boss, Role(name="w", config=scripted(says("wrote"))), Role(name="x")))
        state = await there.run(plan)
        entries = await there.backend.state.read_log("usage")

    assert state.output == "done"
    assert len(entries) == 3


def test_a_summary_names_role_question_and_result() -> None:
    """A failed one says so."""
    children = [
        ChildState(task_id="1", step="s", parent="p", role="w", prompt="dig", output="dug"),
        ChildState(task_id="2", step="s", parent="p", role="x", error="broken"),
    ]

    text = summary_prompt(children)

    assert "## w (1)\nasked: dig\ndug" in text
    assert "## x (2)\n[error] broken" in text


# Roles that are teams


def inner(*inputs: InputSpec) -> Team:
    """A team that another one has as a role."""
    asked = {spec.name: f"{{{{ .input.{spec.name} }}}}" for spec in inputs} or {"prompt": "{{ .input.prompt }}"}
    return Team(
        name="inner",
        inputs=inputs,
        roles=(Role(name="d", config=scripted(says("inner {prompt}"))),),
        steps=(Step(name="s", role="d", inputs=asked),),
        wraps_outputs=False,
    )


@pytest.mark.usefixtures("nobody_looks_again")
@pytest.mark.parametrize(
    ("inputs", "prompt", "told"),
    [
        ((), "dig", "prompt: dig"),
        (
            (InputSpec(name="topic", required=True), InputSpec(name="tone", default="dry")),
            "dig",
            "topic: dig\ntone: dry",
        ),
        ((InputSpec(name="a"), InputSpec(name="b")), '{"a": "1", "b": "2"}', "a: 1\nb: 2"),
        ((InputSpec(name="a"), InputSpec(name="prompt")), "dig", "a: \nprompt: dig"),
    ],
)
async def test_a_team_can_be_delegated_to(inputs: tuple[InputSpec, ...], prompt: str, told: str) -> None:
    """It is a run of its own, whose output is the result; the prompt becomes its input."""
    boss = lead(
        calls("spawn_and_collect", tasks=[{"role": "sub", "prompt": prompt}]), says("{last_result}"), delegates=("sub",)
    )
    async with fleet(slots=1) as there:
        state = await there.run(plan_of(dynamic(boss, Role(name="sub", team="inner")), inner(*inputs)))

    [output] = [each["output"] for each in json.loads(state.output)["completed"].values()]
    assert output.strip() == f"inner {told}"
    [child] = state.children
    assert child.phase is Phase.SUCCEEDED
    assert child.usage.total_tokens


async def test_a_team_that_wants_more_than_a_prompt_says_so() -> None:
    """The model is told which inputs there are."""
    boss = lead(calls("delegate", role="sub", prompt="dig"), says("{results}"), delegates=("sub",))
    team = inner(InputSpec(name="a"), InputSpec(name="b"))
    async with fleet() as there:
        state = await there.run(plan_of(dynamic(boss, Role(name="sub", team="inner")), team))

    assert state.output == "delegate: team 'inner' has the inputs a, b: give a JSON object with them as the prompt"


@pytest.mark.parametrize("is_delegated", [True, False])
async def test_a_team_within_a_run_uses_no_more_than_the_run_has_left(is_delegated: bool) -> None:
    """Its tokens count for the run when it has ended: that is too late to end it."""
    usage = {"input_tokens": 100, "output_tokens": 0}
    worker = Role(name="d", config=scripted({"text": "x", "usage": usage}))
    steps = tuple(Step(name=f"s{n}", role="d", depends_on=(f"s{n - 1}",) if n else ()) for n in range(20))
    within = Team(name="inner", roles=(worker,), steps=steps, wraps_outputs=False)
    sub = Role(name="sub", team="inner")
    if is_delegated:
        spawn = {**calls("spawn_and_collect", tasks=[{"role": "sub", "prompt": "dig"}]), "usage": usage}
        team = dynamic(lead(spawn, says("x"), delegates=("sub",)), sub, max_tokens=500)
    else:
        team = Team(name="crew", roles=(sub,), steps=(Step(name="s", role="sub"),), max_tokens=500)
    async with fleet() as there:
        state = await there.run(plan_of(team, within), {"task": "go"} if is_delegated else {})

    assert (state.phase, state.reason) == (Phase.FAILED, "BudgetExceeded")
    assert 500 < state.tokens < 1000


async def test_a_run_is_forgotten_with_the_runs_within_it() -> None:
    """Delegated ones, too."""
    boss = lead(calls("spawn_and_collect", tasks=[{"role": "sub", "prompt": "dig"}]), says("x"), delegates=("sub",))
    async with fleet() as there:
        state = await there.run(plan_of(dynamic(boss, Role(name="sub", team="inner")), inner()))
        await there.runs.forget(state.id)
        left = [key async for key, _ in there.backend.state.scan("team-runs/")]

    assert len(state.children) == 1
    assert left == []


async def test_cancelling_a_run_ends_what_it_has_delegated() -> None:
    """Tasks that wait, and runs of other teams."""
    slow = {"text": "late", "delay_s": 60}
    boss = lead(
        calls("spawn_and_collect", tasks=[{"role": "w", "prompt": "a"}, {"role": "sub", "prompt": "b"}]),
        delegates=("w", "sub"),
    )
    team = Team(name="inner", roles=(Role(name="d", config=scripted(slow)),), steps=(Step(name="s", role="d"),))
    plan = plan_of(dynamic(boss, Role(name="w", config=scripted(slow)), Role(name="sub", team="inner")), team)
    async with fleet() as there:
        run_id = await there.runs.start(plan, {})

        async def cancel_when_delegated() -> None:
            async for state in there.runs.follow(run_id):
                if len(state.children) == 2:
                    await there.runs.cancel(run_id)
                    return

        async with asyncio.TaskGroup() as group:
            group.create_task(cancel_when_delegated())
            driving = group.create_task(there.drive(run_id))
        state = driving.result()
        sub_run = next(child.task_id for child in state.children if child.role == "sub")
        sub = await there.runs.read(sub_run)

    assert state.phase is Phase.CANCELLED
    assert {child.phase for child in state.children} == {Phase.FAILED}
    assert sub.state.phase is Phase.CANCELLED


async def test_a_child_whose_run_has_ended_is_not_begun() -> None:
    """What a crash has left in the queue spends nothing."""
    plan = crew(calls("delegate", role="w", prompt="p"), says("{results}"))
    async with fleet() as there:
        task = await there.marked(plan, "w")
        await there.runs.cancel(task.meta["run_name"])
        await there.drive(task.meta["run_name"])
        orphan = Task(prompt="p", meta={**task.meta, "team_depth": "1", "team_parent": "1-0"}, idempotency_key="1-0:c")
        result = await there.result(await there.backend.queue.submit(orphan))
        entries = await there.backend.state.read_log("usage")

    assert "the task that it delegated is not begun any more" in result.error
    assert entries == []


async def test_a_child_makes_itself_known() -> None:
    """Whatever has become of its parent: the run knows of it before it spends anything, and how it ended."""
    async with fleet() as there:
        task = await there.marked(crew(), "w")
        orphan = Task(prompt="p", meta={**task.meta, "team_depth": "1", "team_parent": "1-0"}, idempotency_key="1-0:c")
        task_id = await there.backend.queue.submit(orphan)
        await there.result(task_id)
        run = await there.runs.read(task.meta["run_name"])

    [child] = run.state.children
    assert (child.task_id, child.role, child.parent, child.output) == (task_id, "w", "1-0", "wrote p")
    assert child.phase is Phase.SUCCEEDED


# Outside teams


async def plain(there: Fleet, script: dict[str, Any], prompt: str = "go", **fields: Any) -> str:
    """A task of no team whose agent follows a script; what it answers."""
    async with Definitions(there.backend.state) as declared:
        agent = Agent(slug="plain", provider="scripted", model="mock", settings={"options": {"script": script}})
        await declared.agents.create(agent)
    task_id = await there.backend.queue.submit(Task(prompt=prompt, agent="plain", **fields))
    return (await there.result(task_id)).output


SPAWNING = {
    "scenarios": [
        {"match": "sub", "turns": [{"text": "did {prompt}", "delay_s": 0.1}]},
        {
            "turns": [
                calls("spawn_and_collect", tasks=[{"prompt": "sub 1"}, {"prompt": "sub 2"}]),
                says("{last_result}"),
            ]
        },
    ]
}


@pytest.mark.usefixtures("nobody_looks_again")
async def test_a_plain_agent_spawns_and_collects_on_one_slot() -> None:
    """ark offers it to every agent that has a queue."""
    async with fleet(slots=1) as there:
        said = json.loads(await plain(there, SPAWNING))

    assert sorted(each["output"] for each in said["completed"].values()) == ["did sub 1", "did sub 2"]


async def test_without_a_journal_it_waits_in_its_slot() -> None:
    """A run that is put down would begin anew, and submit everything once more."""
    async with fleet({"SHOAL_JOURNAL": "0"}, slots=3) as there:
        said = json.loads(await plain(there, SPAWNING))
        entries = await there.backend.state.read_log("usage")

    assert sorted(each["output"] for each in said["completed"].values()) == ["did sub 1", "did sub 2"]
    assert len(entries) == 4


async def test_nobody_collects_another_tenants_results() -> None:
    """An id that a model has come by is no right to read what it stands for."""
    async with fleet() as there:
        theirs = await there.backend.queue.submit(Task(prompt="secret", tenant="acme"))
        await there.result(theirs)
        script = {"scenarios": [{"turns": [calls("collect_results", task_ids=[theirs]), says("{last_result}")]}]}

        mine = json.loads(await plain(there, script, tenant="rival"))

    assert mine == {"completed": {theirs: "[error] this is no task of this run"}, "pending": []}
