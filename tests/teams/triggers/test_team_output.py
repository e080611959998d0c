"""Triggers that fire when another team's run has ended."""

from __future__ import annotations

import pytest

from tests.teams.triggers.replicas import MINUTE, Replica, at_rest, end, fleet, plan, runs_of, store, store_team
from worker.teams.run_state import Phase
from worker.teams.runs import Run
from worker.teams.triggers.firing import CHAIN, MOST_CHAINED
from worker.teams.triggers.model import OnPhase, Target


async def _ended(where: Replica, run_id: str = "", phase: Phase = Phase.SUCCEEDED, **more: str) -> Run:
    """A run of the team `etl` that has ended."""
    run_id = await where.runs.start(plan("etl"), {}, run_id=run_id, tenant=more.pop("tenant", ""))
    return await end(where, run_id, phase, **more)


async def _watching(replicas: list[Replica], **fields: object) -> None:
    given = {
        "type": "team-output",
        "cron": "",
        "watched_team": "etl",
        "targets": (Target(team="report", input={"data": "{{ .trigger.output }} of {{ .trigger.run }}"}),),
        **fields,
    }
    await store_team(replicas[0])
    await store(replicas[0], replicas, **given)


async def _reports(where: Replica) -> list[str]:
    return [run.id for run in await runs_of(where) if run.team == "report"]


async def test_the_end_of_a_run_starts_another_with_its_output_once() -> None:
    """The hook is told of it three times, by two gateways: one run."""
    async with fleet(2) as (_, replicas):
        await _watching(replicas)
        run = await _ended(replicas[0], "etl-1", output="42 rows")
        for each in (replicas[0], replicas[1], replicas[0]):
            await each.triggers.on_run_end(run)
        await at_rest(replicas)
        [report] = await _reports(replicas[0])
        assert (await replicas[0].runs.read(report)).state.input == {"data": "42 rows of etl-1"}
        other = await _ended(replicas[0], "etl-2", output="7 rows")
        await replicas[1].triggers.on_run_end(other)
        await at_rest(replicas)
        assert len(await _reports(replicas[0])) == 2


@pytest.mark.parametrize(
    ("on_phase", "phase", "reason", "fires"),
    [
        ("Succeeded", Phase.SUCCEEDED, "", True),
        ("Succeeded", Phase.FAILED, "StepFailed", False),
        ("Failed", Phase.FAILED, "StepFailed", True),
        ("Failed", Phase.FAILED, "TimedOut", True),
        ("TimedOut", Phase.FAILED, "TimedOut", True),
        ("TimedOut", Phase.FAILED, "StepFailed", False),
        ("Failed", Phase.CANCELLED, "Cancelled", False),
        ("Cancelled", Phase.CANCELLED, "Cancelled", True),
        ("Ended", Phase.CANCELLED, "Cancelled", True),
    ],
)
async def test_only_the_wanted_end_fires(on_phase: OnPhase, phase: Phase, reason: str, fires: bool) -> None:
    """`onPhase` chooses."""
    async with fleet(1) as (_, replicas):
        await _watching(replicas, on_phase=on_phase)
        await replicas[0].triggers.on_run_end(await _ended(replicas[0], phase=phase, reason=reason))
        await at_rest(replicas)
        assert bool(await _reports(replicas[0])) is fires


async def test_other_teams_tenants_and_steps_fire_nothing() -> None:
    """A tenant's trigger hears of its own runs alone; runs that are steps of others, and those of a laptop, of none."""
    async with fleet(1) as (_, replicas):
        [first] = replicas
        await _watching(replicas, namespace="acme")
        for given in (
            {"tenant": "other"},
            {"parent": ("x", "y"), "tenant": "acme"},
            {"is_local": True, "tenant": "acme"},
        ):
            run_id = await first.runs.start(plan("etl"), {}, **given)
            await first.triggers.on_run_end(await end(first, run_id))
        run_id = await first.runs.start(plan("other"), {}, tenant="acme")
        await first.triggers.on_run_end(await end(first, run_id))
        await at_rest(replicas)
        assert await _reports(first) == []
        await first.triggers.on_run_end(await _ended(first, tenant="acme"))
        await at_rest(replicas)
        assert len(await _reports(first)) == 1


async def test_everybodys_trigger_keeps_the_tenant_of_the_run() -> None:
    """What it starts is that tenant's, too."""
    async with fleet(1) as (_, replicas):
        await _watching(replicas)
        await replicas[0].triggers.on_run_end(await _ended(replicas[0], tenant="acme"))
        await at_rest(replicas)
        assert [run.tenant for run in await runs_of(replicas[0]) if run.team == "report"] == ["acme"]


async def test_triggers_that_start_each_other_stop() -> None:
    """A team whose end starts itself: after so many runs the chain is cut, and that is seen."""
    async with fleet(2) as (_, replicas):
        first = replicas[0]
        await store_team(first, "etl")
        await _watching(replicas, slug="round", targets=(Target(team="etl"),))
        stored = first.definitions.triggers.get("round")
        assert stored is not None
        await first.triggers.on_run_end(await _ended(first))
        seen = 1
        while True:
            await at_rest(replicas)
            going = [
                run for run in await runs_of(first) if not run.phase.is_final and run.labels.get(CHAIN) == str(seen)
            ]
            if not going:
                break
            [run] = going
            await first.triggers.on_run_end(await end(first, run.id))
            seen += 1
            assert seen < 20
        assert seen - 1 == MOST_CHAINED
        status = await first.triggers.status(stored)
        assert (status.fired, status.failed) == (MOST_CHAINED, 1)
        assert "go round" in status.last_error


async def test_another_gateway_fires_what_the_one_that_heard_of_it_could_not() -> None:
    """The claim is written down before the hook returns: should that process die then, another one goes on."""
    async with fleet(2) as (_, replicas):
        first, second = replicas
        await _watching(replicas)
        run = await _ended(first)
        dying = first.triggers
        await dying._firing.stop()
        await dying.on_run_end(run)
        assert await _reports(second) == []
        second.clock.set(second.clock.now() + MINUTE)
        await at_rest([second])
        assert len(await _reports(second)) == 1
