"""`shoal runs` and `shoal team`: what the fleet has, and what became of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from queue_backends import Backend
from tests.cli.cli_harness import Shoal, WithBackend
from worker.teams.ownership import Ownership
from worker.teams.plan import Plan, Role, Step, Team
from worker.teams.run_events import (
    ApprovalAsked,
    ApprovalDecided,
    ChildEnded,
    Delegated,
    RunEnded,
    RunStarted,
    StepEnded,
    StepRetried,
    StepSkipped,
    StepStarted,
    TaskEnded,
    TaskSubmitted,
)
from worker.teams.run_state import Phase
from worker.teams.runs import Runs

TEAM = """
apiVersion: kubeswarm.io/v1alpha1
kind: SwarmTeam
metadata: {name: crew}
spec:
  description: They write.
  inputs: [{name: topic, type: string, required: true}]
  roles: [{name: draft, model: gpt-4o}, {name: edit, model: mock}]
  pipeline:
    - {role: draft, inputs: {prompt: "{{ .input.topic }}"}}
    - {role: edit, dependsOn: [draft], inputs: {prompt: "{{ .steps.draft.output }}"}}
"""
AT = 1_000_000.0


@pytest.fixture
def team_file(tmp_path: Path) -> str:
    """A team of two."""
    path = tmp_path / "team.yaml"
    path.write_text(TEAM)
    return str(path)


async def a_long_story(backend: Backend) -> None:
    """A run in which everything has happened that can."""
    roles = tuple(Role(name=name) for name in ("a", "b", "c"))
    steps = tuple(Step(name=name, role=name) for name in ("a", "b", "c"))
    plan = Plan(name="saga", teams=(Team(name="saga", roles=roles, steps=steps),))
    runs = Runs(backend.state)
    await runs.start(plan, {"topic": "whales", "depth": 3}, run_id="saga-1", trigger="nightly")
    await runs.append_all(
        "saga-1",
        [
            RunStarted(at=AT),
            StepSkipped(at=AT, step="c", message="skipped: if condition evaluated to false"),
            ApprovalAsked(at=AT, step="b", approval_id="ab12", message="May it?"),
            ApprovalDecided(at=AT + 1, step="b", approval_id="ab12", outcome="reject", by="ann"),
            StepStarted(at=AT + 1, step="a", role="a"),
            TaskSubmitted(at=AT + 1, step="a", iteration=1, attempt=1, purpose="step", task_id="t1"),
            Delegated(at=AT + 2, call_id="c1", task_id="t2", step="a", parent="t1", role="b", prompt="Look"),
            ChildEnded(at=AT + 3, task_id="t2", error="the model says no"),
            StepRetried(at=AT + 3, step="a", iteration=1, attempt=1, message="[retry 1] validation failed: thin"),
            TaskEnded(at=AT + 4, step="a", iteration=1, attempt=2, purpose="step", output="evil\x1b[2J text"),
            StepEnded(at=AT + 5, step="a", iteration=1, phase=Phase.SUCCEEDED, validated=True),
            RunEnded(at=AT + 6, phase=Phase.FAILED, reason="StepFailed", message="one or more steps failed"),
        ],
    )


def test_show_tells_the_whole_story(shoal: Shoal, with_backend: WithBackend) -> None:
    """Facts and input, the tree, and each event with its moment from the run's beginning on; nothing steers the
    terminal."""
    with_backend(a_long_story)
    outcome = shoal("runs", "show", "saga-1")
    assert outcome.code == 0
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    for expected in (
        "phase Failed",
        "why one or more steps failed",
        "trigger nightly",
        "input topic whales",
        "input depth 3",
        "+0.0 s run begins",
        "+1.0 s b rejected by ann",
        "+1.0 s a step submitted task t1",
        "+2.0 s a delegated to b task t2 · Look",
        "+3.0 s delegated task failed task t2 · the model says no",
        "+3.0 s a tries again [retry 1] validation failed: thin",
        "+4.0 s a step ended evil text",
        "+6.0 s run failed one or more steps failed",
    ):
        assert expected in lines
    assert "\x1b" not in outcome.out


def test_show_as_json_has_the_events(shoal: Shoal, with_backend: WithBackend) -> None:
    """With the ids that they have in the log; every step has its phase."""
    with_backend(a_long_story)
    found = json.loads(shoal("runs", "show", "saga-1", "--json").out)
    assert (found["phase"], found["team"], found["is_local"]) == ("Failed", "saga", False)
    assert [step["phase"] for step in found["steps"]] == ["Succeeded", "Pending", "Skipped"]
    assert found["children"][0]["error"] == "the model says no"
    assert [event["id"] for event in found["events"]][:2] == ["started", "step/c/skipped"]


def test_runs_are_listed_the_newest_first(shoal: Shoal, queue_url: str, team_file: str) -> None:
    """All of them, those of a team, those in a phase."""
    ids = [
        shoal("run", team_file, "--queue", queue_url, "--detach", "--input", "topic=x").out.strip() for _ in range(2)
    ]
    shoal("runs", "cancel", ids[0])
    listed = [json.loads(line) for line in shoal("runs", "list", "--json").out.splitlines()]
    assert {found["id"] for found in listed} == set(ids)
    assert listed[0]["tokens"] == 0
    assert [line.split()[1:3] for line in shoal("runs", "list").out.splitlines()[1:]] == [["crew", "Pending"]] * 2
    assert shoal("runs", "list", "--phase", "succeeded").err == "no runs: shoal run team.yaml\n"
    assert len(shoal("runs", "list", "--team", "crew", "--phase", "pending", "--json").out.splitlines()) == 2


def test_a_local_run_whose_process_is_gone_is_interrupted(
    shoal: Shoal, with_backend: WithBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists say so, and how to go on with it, until somebody does; `shoal runs` alone is the list."""
    monkeypatch.setattr("worker.teams.run_index.YOUNG_S", 0.0)
    role = Role(name="a")
    plan = Plan(name="saga", teams=(Team(name="saga", roles=(role,), steps=(Step(name="a", role="a"),)),))

    async def left(backend: Backend) -> None:
        await Runs(backend.state).start(plan, {}, run_id="saga-1", is_local=True)

    async def driven(backend: Backend) -> None:
        async with Ownership(backend.state) as process:
            assert await process.take("saga-1") is not None
            summary = await Runs(backend.state).index.summary("saga-1")
            assert summary is not None
            assert not summary.is_interrupted

    with_backend(left)
    with_backend(driven)
    listed, shown = shoal("runs"), shoal("runs", "show", "saga-1")
    for outcome in (listed, shown):
        assert "Interrupted" in outcome.out
        assert "shoal run --resume saga-1" in outcome.out
    document = json.loads(shoal("runs", "--json").out)
    assert (document["phase"], document["is_interrupted"]) == ("Pending", True)
    assert json.loads(shoal("runs", "show", "saga-1", "--json").out)["is_interrupted"] is True


def test_what_is_not_there_is_exit_code_4(shoal: Shoal) -> None:
    """For each of the commands."""
    for arguments in (
        ("runs", "show", "x"),
        ("runs", "watch", "x"),
        ("runs", "cancel", "x"),
        ("runs", "resume", "x"),
        ("team", "show", "x"),
        ("team", "delete", "x"),
    ):
        outcome = shoal(*arguments)
        assert outcome.code == 4, arguments
        assert "'x'" in outcome.err


def test_wrong_input_starts_no_run(shoal: Shoal, queue_url: str, team_file: str) -> None:
    """What the team declares is checked first."""
    outcome = shoal("run", team_file, "--queue", queue_url, "--detach")
    assert outcome.code == 2
    assert 'required input parameter "topic" is missing' in outcome.err
    assert shoal("runs", "list", "--json").out == ""


def test_teams_are_stored_shown_and_deleted(shoal: Shoal, team_file: str) -> None:
    """`apply` says what it did, and doing it again does no harm."""
    assert shoal("team", "apply", team_file).out == "team crew created\n"
    assert shoal("team", "apply", team_file).out == "team crew unchanged\n"
    [listed] = [json.loads(line) for line in shoal("team", "list", "--json").out.splitlines()]
    assert (listed["kind"], listed["slug"], listed["steps"], listed["mode"]) == ("team", "crew", 2, "pipeline")
    shown = shoal("team", "show", "crew").out
    assert "description  They write." in shown
    assert "string, required" in shown
    assert [line.split() for line in shown.splitlines()[-2:]] == [
        ["draft", "draft", "gpt-4o"],
        ["edit", "edit", "mock", "draft"],
    ]
    assert shoal("team", "delete", "crew").out == "team crew removed\n"
    assert shoal("team", "list", "--json").out == ""


def test_all_that_a_file_declares_is_deleted_by_it(shoal: Shoal, team_file: str) -> None:
    """And what is not there is passed over."""
    shoal("team", "apply", team_file)
    assert shoal("team", "delete", "--file", team_file).out == "team crew removed\n"
    assert shoal("team", "delete", "--file", team_file).out == ""
    assert shoal("team", "delete").code == 2


def test_a_file_that_cannot_be_used_is_refused_with_every_error(shoal: Shoal, tmp_path: Path) -> None:
    """One line each, with its place; exit code 2."""
    path = tmp_path / "bad.yaml"
    path.write_text(TEAM.replace("dependsOn: [draft]", "dependsOn: [nobody]").replace("type: string", "type: strnig"))
    for arguments in (("team", "apply", str(path)), ("run", str(path))):
        outcome = shoal(*arguments)
        assert outcome.code == 2
        assert "bad.yaml:" in outcome.err
        assert len(outcome.err.splitlines()) == 2
