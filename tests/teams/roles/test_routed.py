"""Routed teams and lookups: who is chosen, why, and what happens if nobody fits."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tests.teams.roles.team_fleet import by_prompt, fleet, plan_of, says, scripted
from worker.teams.errors import TemplateError
from worker.teams.plan import ROUTE, ROUTER, Capability, Lookup, Role, Step, Team
from worker.teams.routed import (
    RegistryLookupFailed,
    RoutingFailed,
    look_up,
    route,
    router_input,
    router_prompt,
)
from worker.teams.run_state import ChildState, Phase, RunState, StepState


def role(name: str, *capabilities: str, tags: tuple[str, ...] = (), **fields: Any) -> Role:
    """A role that says what it can do."""
    able = tuple(Capability(name=each, description=f"does {each}", tags=tags) for each in capabilities)
    return Role(name=name, capabilities=able, **fields)


def routed(*roles: Role, fallback: str = "", router: Role | None = None, strategy: Any = "least-busy") -> Team:
    """A routed team, as it is compiled."""
    return Team(
        name="desk",
        mode="routed",
        roles=(router or Role(name=ROUTER), *roles),
        steps=(
            Step(name=ROUTER, role=ROUTER),
            Step(
                name=ROUTE,
                role="",
                inputs={"task": "{{ .input.task }}"},
                depends_on=(ROUTER,),
                lookup=Lookup(capability="", fallback=fallback, strategy=strategy),
            ),
        ),
        wraps_outputs=False,
    )


def answered(text: str, run: str = "run-1") -> RunState:
    """A run whose router has said this."""
    steps = (StepState(name=ROUTER, phase=Phase.SUCCEEDED, output=text), StepState(name=ROUTE))
    return RunState(id=run, team="desk", steps=steps, input={"task": "mend it"})


def chose(capability: str, reason: str = "it fits") -> RunState:
    """A run whose router has chosen."""
    return answered(json.dumps({"capability": capability, "reason": reason}))


TEAM = routed(role("mender", "mend", tags=("hand",)), role("writer", "write", "mend"), role("idle"))


# The router


def test_the_router_is_told_of_all_capabilities_and_the_input() -> None:
    """By name, each once, with description and all tags."""
    said = router_prompt(TEAM, answered(""))

    assert "- mend: does mend (tags: hand)\n- write: does write\n" in said
    assert '{"task":"mend it"}' in said
    assert router_input(answered("")) == '{"task":"mend it"}'


def test_a_teams_own_router_prompt() -> None:
    """With the names that kubeswarm's templates use."""
    own = "{{ range .Capabilities }}[{{ .ID }}|{{ range .Agents }}{{ . }} {{ end }}]{{ end }} {{ .Input }}"
    team = routed(
        role("mender", "mend"),
        role("both", "mend", "write"),
        router=Role(name=ROUTER, config=scripted(system_prompt=own)),
    )

    assert router_prompt(team, answered("")) == '[mend|both mender ][write|both ] {"task":"mend it"}'


def test_a_router_prompt_that_is_no_template() -> None:
    """The error has line and column."""
    team = routed(role("a", "b"), router=Role(name=ROUTER, config=scripted(system_prompt="{{ .Input")))

    with pytest.raises(TemplateError, match=r"routing.systemPrompt:1:"):
        router_prompt(team, answered(""))


@pytest.mark.parametrize(
    "text",
    [
        '{"capability": "write", "reason": "it fits"}',
        'Sure!\n```json\n{"capability": " write ", "reason": "it fits"}\n```',
        'I take {"capability":"write","reason":"it fits"} here.',
        '{"Capability": "write", "Reason": "it fits"}',
    ],
)
def test_what_the_router_says_is_read_out_of_whatever_is_around_it(text: str) -> None:
    """Models do that."""
    choice = route(TEAM, answered(text))

    assert (choice.role, choice.meta) == ("writer", {"capability": "write", "routing_reason": "it fits"})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("no idea", "the router did not answer with JSON: 'no idea'"),
        ("{no}", "the router's JSON cannot be read: "),
        ('{"a":' * 100_000 + "}", "the router's JSON cannot be read: "),
        ('{"capability": "\ud800"}', "the router's JSON cannot be read: "),
        ('{"capability": 7}', "the router named '7' as capability, which is no text"),
        ('{"capability": "", "reason": "too odd"}', "the router chose no capability: too odd"),
        ('{"capability": "fly"}', "no role has the capability 'fly' that the router chose"),
    ],
)
def test_nobody_fits(text: str, why: str) -> None:
    """The fallback does it, if there is one, and the reason is kept; otherwise the run fails with it."""
    with pytest.raises(RoutingFailed) as failed:
        route(TEAM, answered(text))
    assert str(failed.value).startswith(why)
    assert str(failed.value).endswith(", and no fallback is configured")

    choice = route(routed(*TEAM.roles[1:], fallback="idle"), answered(text))
    assert (choice.role, choice.capability) == ("idle", "")
    assert choice.reason.startswith(why)


def test_a_fallback_that_is_not_there() -> None:
    """It is said."""
    with pytest.raises(RoutingFailed, match="there is no role 'ghost', the fallback"):
        route(routed(role("a", "b"), fallback="ghost"), chose(""))


def test_no_role_has_a_capability() -> None:
    """Without asking anybody."""
    with pytest.raises(RoutingFailed, match="no role of the team has a capability"):
        route(routed(role("a")), chose("b"))


# Lookups


def looking(*roles: Role, **fields: Any) -> tuple[Team, Step]:
    """A team with a step that looks its role up."""
    step = Step(name="work", role="", lookup=Lookup(**{"capability": "mend", **fields}))
    return Team(name="desk", roles=roles, steps=(step,)), step


def state_of(run: str = "run-1", children: tuple[ChildState, ...] = (), **steps: str) -> RunState:
    """A run in which these steps are being done by these roles."""
    running = tuple(StepState(name=name, phase=Phase.RUNNING, role=by) for name, by in steps.items())
    work = StepState(name="work")
    return RunState(id=run, team="desk", steps=(*running, work), children=children, input={"what": "mend"})


MENDERS = (role("ann", "mend", tags=("fast",)), role("bob", "mend", tags=("fast", "good")), role("cid", "write"))


def test_tags_have_to_fit_all() -> None:
    """Only who has all of them is asked."""
    team, step = looking(*MENDERS, tags=("good", "fast"))

    assert {look_up(team, step, state_of(f"run-{number}")).role for number in range(20)} == {"bob"}


def test_the_capability_may_be_a_template() -> None:
    """Evaluated when the step begins."""
    team, step = looking(*MENDERS, capability="{{ .input.what }}", tags=("good",))

    choice = look_up(team, step, state_of())

    assert (choice.role, choice.meta) == ("bob", {"capability": "mend"})


def test_least_busy_is_who_has_least_to_do_in_the_run() -> None:
    """Steps and delegated tasks that are under way count."""
    team, step = looking(*MENDERS)
    child = ChildState(task_id="1", step="s", parent="p", role="bob")

    assert look_up(team, step, state_of(first="ann")).role == "bob"
    assert look_up(team, step, state_of(first="ann", children=(child, child))).role == "ann"


@pytest.mark.parametrize("strategy", ["least-busy", "round-robin", "random"])
def test_a_resumed_run_finds_the_same_and_many_runs_find_all(strategy: str) -> None:
    """The choice follows from the run's id."""
    team, step = looking(*MENDERS, strategy=strategy)
    found = [look_up(team, step, state_of(f"run-{number}")).role for number in range(100)]
    again = [look_up(team, step, state_of(f"run-{number}")).role for number in range(100)]

    assert found == again
    assert min(Counter(found).values()) > 20
    assert set(found) == {"ann", "bob"}


def test_round_robin_takes_turns_within_a_run() -> None:
    """From step to step."""
    steps = tuple(
        Step(name=f"s{number}", role="", lookup=Lookup(capability="mend", strategy="round-robin"))
        for number in range(4)
    )
    team = Team(name="desk", roles=MENDERS, steps=steps)
    state = RunState(id="r", team="desk", steps=tuple(StepState(name=step.name) for step in steps))

    found = [look_up(team, step, state).role for step in steps]

    assert found[0] != found[1]
    assert found[:2] == found[2:]


def test_nobody_can_do_it() -> None:
    """The fallback does; without one, the message says what there is."""
    team, step = looking(*MENDERS, capability="fly", tags=("high",))
    with pytest.raises(RegistryLookupFailed) as failed:
        look_up(team, step, state_of())
    assert str(failed.value) == (
        "no role has the capability 'fly' with the tags high that step 'work' needs; there are: mend, write"
    )

    team, step = looking(*MENDERS, capability="fly", fallback="cid")
    assert look_up(team, step, state_of()).role == "cid"


# Whole runs


def desk(answer: str, fallback: str = "") -> Team:
    """A routed team whose router answers so."""
    return routed(
        role("mender", "mend", config=by_prompt({"": [says("mended: {prompt}")]})),
        role("writer", "write", config=by_prompt({"": [says("written: {prompt}")]})),
        fallback=fallback,
        router=Role(name=ROUTER, config=scripted(says(answer))),
    )


async def test_a_routed_run() -> None:
    """The router's choice does the work; its task says why."""
    async with fleet() as there:
        state = await there.run(plan_of(desk('{"capability": "mend", "reason": "broken"}')), {"task": "a chair"})
        entries = await there.backend.state.read_log("usage")

    assert state.phase is Phase.SUCCEEDED, state.message
    assert state.output.strip() == "mended: task: a chair"
    assert state.step(ROUTE).role == "mender"
    assert [json.loads(entry.value)["role"] for entry in entries] == [ROUTER, "mender"]


async def test_the_task_carries_capability_and_reason() -> None:
    """Under kubeswarm's names."""
    async with fleet() as there:
        seen: list[dict[str, str]] = []
        submit = there.backend.queue.submit

        async def note(task: Any, **named: Any) -> str:
            seen.append(task.meta)
            return await submit(task, **named)

        there.backend.queue.submit = note  # type: ignore[method-assign]  # to see what is submitted
        await there.run(plan_of(desk('{"capability": "write", "reason": "words"}')), {"task": "a poem"})

    assert [(meta.get("capability"), meta.get("routing_reason")) for meta in seen] == [(None, None), ("write", "words")]


async def test_a_routed_run_that_finds_nobody() -> None:
    """It fails with the reason in one word, and in a sentence."""
    async with fleet() as there:
        state = await there.run(plan_of(desk('{"capability": "", "reason": "odd"}')), {"task": "fly"})

    assert (state.phase, state.reason) == (Phase.FAILED, "RoutingFailed")
    assert state.step(ROUTE).message == "the router chose no capability: odd, and no fallback is configured"


async def test_a_routed_run_with_a_fallback() -> None:
    """It goes on."""
    async with fleet() as there:
        state = await there.run(plan_of(desk("dunno", fallback="writer")), {"task": "fly"})

    assert state.output.strip() == "written: task: fly"
