"""The teams of examples/teams run offline, as they are, on the path of `shoal run`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from providers import detect
from worker.approvals import Approvals
from worker.cli.team_plan import Wishes, shaped
from worker.settings import load_settings
from worker.teams.bundle import read_bundle
from worker.teams.local import LocalFleet, local_fleet
from worker.teams.plan import Plan, Role, Team
from worker.teams.run_state import Phase, RunState

FOLDER = Path(__file__).parents[2] / "examples" / "teams"
FILES = sorted(FOLDER.glob("*.yaml"))
WITHIN_S = 30.0
APPROVE = {"release-notes": True}
SAID = {
    "research": ["worth it in a house of 1960", "(confidence 72 %, 2 questions followed up)"],
    "code-review": ["average: types, documentation", 'raise ValueError("average() needs at least one number")'],
    "support-desk": ["Dear Ada", "release 4.2.1"],
    "helpdesk": ["Scan the new code with your new phone"],
    "release-notes": ["# Version 1.4.0", "## Before you update", "Announcement: Exports of any length"],
}
STEPS = {
    "research": ["facts", "numbers", "doubts", "weigh", "follow-up", "report"],
    "code-review": ["review", "message"],
    "support-desk": ["desk"],
    "helpdesk": ["(router)", "route"],
    "release-notes": ["sort", "write", "announce"],
}


def without_pauses(plan: Plan) -> Plan:
    """The plan, whose scripts answer at once: the pauses are for people who watch."""

    def hastened(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: 0.0 if key == "delay_s" else hastened(item) for key, item in value.items()}
        return [hastened(item) for item in value] if isinstance(value, list) else value

    def role(found: Role) -> Role:
        return replace(found, config=replace(found.config, options=hastened(found.config.options)))

    def team(found: Team) -> Team:
        return replace(found, roles=tuple(map(role, found.roles)))

    return replace(plan, teams=tuple(map(team, plan.teams)))


def plan_of(file: Path) -> Plan:
    """The plan that `shoal run FILE` takes."""
    bundle = read_bundle(file)
    return without_pauses(bundle.plan(bundle.runs[0].team if bundle.runs else ""))


async def ran(fleet: LocalFleet, plan: Plan, given: dict[str, Any]) -> RunState:
    """A run to its end; what it asks people is answered as `APPROVE` says."""
    run_id = await fleet.runs.start(plan, given, is_local=True)
    approvals = Approvals(fleet.backend.state, wake=fleet.backend.queue.wake)
    async with asyncio.TaskGroup() as tasks:
        driving = tasks.create_task(fleet.driver.drive(run_id), name="drive")
        async for state in fleet.runs.follow(run_id):
            for step in state.steps:
                if step.phase is Phase.WAITING and step.approval_id:
                    await approvals.decide(step.approval_id, approved=APPROVE[plan.name], reviewer="a test")
    return driving.result()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_an_example_runs_offline_as_it_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that each team, without any input, ends with its own text, from any folder, all steps done."""
    monkeypatch.chdir(file.anchor)
    settings = load_settings({"TASK_QUEUE_URL": "memory://", "AGENT_GRACE_SECONDS": "0"})
    async with asyncio.timeout(WITHIN_S), local_fleet(settings) as fleet:
        state = await ran(fleet, plan_of(file), {})
    assert state.phase is Phase.SUCCEEDED, state.message
    assert [step.name for step in state.steps] == STEPS[file.stem]
    assert {step.phase for step in state.steps} == {Phase.SUCCEEDED}
    for text in SAID[file.stem]:
        assert text in state.output
    assert "mock response" not in state.output


async def test_the_examples_show_what_they_are_for() -> None:
    """Proves three rounds of the loop, two delegated tasks, the fallback of the router, and the way of a no."""
    settings = load_settings({"TASK_QUEUE_URL": "memory://", "AGENT_GRACE_SECONDS": "0"})
    fish = {"question": "Who feeds the fish?"}
    async with asyncio.timeout(WITHIN_S), local_fleet(settings) as fleet:
        review = await ran(fleet, plan_of(FOLDER / "code-review.yaml"), {})
        desk = await ran(fleet, plan_of(FOLDER / "support-desk.yaml"), {})
        helped = await ran(fleet, plan_of(FOLDER / "helpdesk.yaml"), fish)
    assert review.step("review").iteration == 3
    assert sorted(child.role for child in desk.children) == ["billing", "engineering"]
    assert helped.step("route").role == "reception"


async def test_a_no_ends_the_release_without_an_announcement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a person's no is respected."""
    monkeypatch.setitem(APPROVE, "release-notes", False)
    settings = load_settings({"TASK_QUEUE_URL": "memory://", "AGENT_GRACE_SECONDS": "0"})
    async with asyncio.timeout(WITHIN_S), local_fleet(settings) as fleet:
        state = await ran(fleet, plan_of(FOLDER / "release-notes.yaml"), {})
    assert state.step("write").phase is Phase.SUCCEEDED
    assert not state.step("announce").output


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_has_no_findings_and_takes_a_real_model(file: Path) -> None:
    """Proves that nobody is greeted by warnings, and that `--model` alone puts a real provider behind every role."""
    bundle = read_bundle(file)
    assert [str(finding) for finding in bundle.findings] == []
    for team in shaped(bundle.plan(), Wishes(model="claude-sonnet-4-5")).teams:
        for role in team.roles:
            assert role.team or (role.config.model, role.config.provider) == ("claude-sonnet-4-5", "")
    assert detect("claude-sonnet-4-5") == "anthropic"


def test_every_file_is_used_and_listed() -> None:
    """Proves that no script lies about unused, and that the page lists each team."""
    teams = "".join(file.read_text() for file in FILES)
    for script in (FOLDER / "answers").glob("*.yaml"):
        assert f"answers/{script.name}" in teams
        msgspec.yaml.decode(script.read_bytes())
    page = (FOLDER / "README.md").read_text()
    assert {file.stem for file in FILES} == set(SAID)
    for file in FILES:
        assert f"[{file.name}]({file.name})" in page
