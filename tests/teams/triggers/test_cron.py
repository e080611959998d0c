"""Ticks of cron triggers over several gateways: each fires once, whatever happens to whom."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from queue_backends import BackendUnavailable, open_backend
from tests.teams.triggers.replicas import (
    HOUR,
    MINUTE,
    NINE,
    Replica,
    StandingClock,
    at_rest,
    change,
    fleet,
    move,
    replica,
    runs_of,
    store,
    store_team,
    written_at,
)
from worker.teams.triggers.firing import FiringState
from worker.teams.triggers.model import Target, Trigger

DAY = 24 * HOUR


async def _history(where: Replica, slug: str = "daily") -> list[FiringState]:
    found = await where.triggers.ledger.history("", slug)
    return [each.state for each in found]


async def test_three_gateways_fire_a_tick_once() -> None:
    """All of them see it at the same moment; one run is started, and one firing counted."""
    async with fleet(3) as (_, replicas):
        first = replicas[0]
        await store_team(first)
        stored = await store(first, replicas)
        await move(replicas, MINUTE)
        [run] = await runs_of(first)
        assert (run.team, run.trigger) == ("report", "daily")
        status = await first.triggers.status(stored)
        assert (status.fired, status.last_fired_at, status.next_fire_at) == (1, NINE, NINE + DAY)


async def test_many_ticks_make_as_many_runs() -> None:
    """Over hours, with two gateways whose clocks differ by seconds: none is lost, none is fired twice."""
    async with fleet(2, skew_s=7.0) as (_, replicas):
        first = replicas[0]
        await store_team(first)
        await store(first, replicas, cron="* * * * *")
        for _ in range(40):
            await move(replicas, MINUTE)
        assert len(await runs_of(first)) in (40, 41)  # the one that is ahead may have had the next
        ticks = [each.fired_at for each in await first.triggers.ledger.history("", "daily", limit=200)]
        assert len(ticks) == len(set(ticks)) == len(await runs_of(first))
        assert sorted(ticks) == [NINE + MINUTE * index for index in range(len(ticks))]


async def test_the_last_missed_tick_is_made_up_for_once() -> None:
    """Nobody was there at nine, at half past and at ten: at ten past ten, ten o'clock is fired, and nothing else."""
    async with await open_backend("memory://") as backend:
        clock = StandingClock(NINE - HOUR)
        async with replica(backend.state, clock) as first:
            await store_team(first)
            await store(first, cron="*/30 9-17 * * *")
        clock.set(NINE + HOUR + 10 * MINUTE)
        late = StandingClock(NINE + HOUR + 10 * MINUTE)
        async with replica(backend.state, clock) as second, replica(backend.state, late, name="two") as third:
            await at_rest([second, third])
            [firing] = await second.triggers.ledger.history("", "daily")
            assert firing.fired_at == NINE + HOUR
            assert len(await runs_of(second)) == 1


async def test_a_tick_that_is_older_than_the_deadline_is_left_out() -> None:
    """With a starting deadline of ten minutes, nothing is made up for after an hour; the next one fires."""
    async with await open_backend("memory://") as backend:
        clock = StandingClock(NINE - HOUR)
        async with replica(backend.state, clock) as first:
            await store_team(first)
            await store(first, starting_deadline_s=600)
        clock.set(NINE + HOUR)
        async with replica(backend.state, clock) as second:
            await at_rest([second])
            assert await runs_of(second) == []
            await move([second], DAY - HOUR)
            assert len(await runs_of(second)) == 1


async def test_what_was_before_a_trigger_existed_is_not_fired() -> None:
    """A trigger that is stored at ten past nine has not missed nine o'clock."""
    async with fleet(1, now=NINE + 10 * MINUTE) as (_, replicas):
        await store_team(replicas[0])
        await store(replicas[0])
        await move(replicas, MINUTE)
        assert await runs_of(replicas[0]) == []


async def test_ticks_while_it_was_suspended_are_not_made_up_for() -> None:
    """Suspended before nine and resumed after, while no gateway ran: nothing of that is fired, the next day's is."""
    async with await open_backend("memory://") as backend:
        clock = StandingClock(NINE - DAY + MINUTE)
        async with replica(backend.state, clock) as first:
            await store_team(first)
            await store(first)
            await change(first, [first], description="so that the schedule was looked at")
        clock.set(NINE - MINUTE)
        declared = first.definitions.triggers
        with written_at(clock):
            await declared.change("daily", lambda trigger: _with(trigger, suspended=True))
        clock.set(NINE + MINUTE)
        with written_at(clock):
            await declared.change("daily", lambda trigger: _with(trigger, suspended=False))
        async with replica(backend.state, clock) as second:
            await at_rest([second])
            assert await runs_of(second) == []
            await move([second], DAY)
            assert len(await runs_of(second)) == 1


async def test_another_change_loses_no_missed_tick() -> None:
    """A description that was changed at ten past nine, before any gateway was there again, is no reason to forget nine
    o'clock; another schedule is."""
    for fields, runs in (({"description": "new"}, 1), ({"cron": "0 8,9 * * *"}, 0)):
        async with await open_backend("memory://") as backend:
            clock = StandingClock(NINE - HOUR)
            async with replica(backend.state, clock) as first:
                await store_team(first)
                await store(first)
            clock.set(NINE + 10 * MINUTE)
            with written_at(clock):
                await first.definitions.triggers.change("daily", lambda trigger: _with(trigger, **fields))  # noqa: B023 - it is called at once
            async with replica(backend.state, clock) as second:
                await at_rest([second])
                assert len(await runs_of(second)) == runs, fields


async def test_a_suspended_trigger_does_not_fire_and_a_resumed_one_does() -> None:
    """Both are heard of without a restart."""
    async with fleet(2) as (_, replicas):
        first = replicas[0]
        await store_team(first)
        await store(first, replicas)
        await change(first, replicas, suspended=True)
        await move(replicas, HOUR)
        assert await runs_of(first) == []
        await change(first, replicas, suspended=False)
        await move(replicas, DAY)
        assert len(await runs_of(first)) == 1


async def test_a_new_schedule_wakes_those_who_wait_for_the_old_one() -> None:
    """Who waits for next morning fires in a minute, when the schedule says so."""
    async with fleet(2, now=NINE + MINUTE) as (_, replicas):
        first = replicas[0]
        await store_team(first)
        await store(first, replicas)
        await change(first, replicas, cron="5 9 * * *")
        await move(replicas, 4 * MINUTE)
        assert len(await runs_of(first)) == 1


async def test_a_deleted_and_recreated_trigger_fires_anew() -> None:
    """It is another one: what the old one did at nine is no reason to leave this one's nine out."""
    async with fleet(1) as (_, replicas):
        [first] = replicas
        await store_team(first)
        await store(first)
        await move(replicas, MINUTE)
        await first.definitions.triggers.delete("daily")
        first.clock.set(NINE - MINUTE)
        stored = await store(first)
        await move(replicas, MINUTE)
        assert len(await runs_of(first)) == 2
        assert (await first.triggers.status(stored)).fired == 1


class _DiesAtStart:
    """A gateway's runs, when it is killed right after the claim, before anything is started."""

    def __init__(self, runs: object) -> None:
        self._runs = runs

    def __getattr__(self, name: str) -> object:
        return getattr(self._runs, name)

    async def start(self, *_: object, **__: object) -> str:
        raise BackendUnavailable("this process is dead")


async def test_another_gateway_carries_on_when_one_dies_between_claim_and_start() -> None:
    """The claim stands in the store; after a few seconds whoever sees it does the rest, once."""
    async with await open_backend("memory://") as backend:
        clock = StandingClock(NINE - MINUTE)
        async with replica(backend.state, clock, name="dies", wrap=_DiesAtStart) as dying:  # type: ignore[arg-type]  # it looks like runs
            await store_team(dying)
            await store(dying)
            clock.set(NINE)
            await at_rest([dying])
        other = StandingClock(NINE + 1)
        async with replica(backend.state, other, name="lives") as living:
            await at_rest([living])
            assert await runs_of(living) == [], "it waits for whoever has claimed it"
            await move([living], 11.0)
            assert len(await runs_of(living)) == 1
            await move([living], 60.0)
            assert len(await runs_of(living)) == 1
            assert await _history(living) == [FiringState.FIRED]


async def test_a_firing_that_fails_is_seen_and_stops_nothing() -> None:
    """A team that is not there, an input that does not fit, a template that cannot be evaluated: each is told in the
    status; the other targets run, and the next tick comes."""
    async with fleet(2) as (_, replicas):
        first = replicas[0]
        await store_team(first)
        targets = (
            Target(team="none-such"),
            Target(team="report", input={"topic": "{{ index .trigger.body 5 }}"}),
            Target(team="report", input={"topic": "{{ .trigger.name }} at {{ .trigger.firedAt }}"}),
        )
        stored = await store(first, replicas, targets=targets)
        await move(replicas, MINUTE)
        [run] = await runs_of(first)
        assert (await first.runs.read(run.id)).state.input == {"topic": "daily at 2026-11-02T09:00:00Z"}
        status = await first.triggers.status(stored)
        assert (status.fired, status.failed, status.last_error_at) == (1, 1, NINE)
        assert "none-such" in status.last_error
        assert "report: " in status.last_error
        await move(replicas, DAY)
        assert len(await runs_of(first)) == 2


async def test_a_trigger_whose_only_target_is_not_there_has_failed() -> None:
    """It is no firing that counts, and the reason stands in the status."""
    async with fleet(1) as (_, replicas):
        stored = await store(replicas[0], targets=(Target(agent="nobody", prompt="hello"),))
        await move(replicas, MINUTE)
        status = await replicas[0].triggers.status(stored)
        assert (status.fired, status.failed) == (0, 1)
        assert "nobody" in status.last_error
        assert status.firings[0].state is FiringState.FAILED


async def test_a_fan_out_starts_one_run_for_each_target() -> None:
    """Also with several gateways, and with the same team twice."""
    async with fleet(3) as (_, replicas):
        first = replicas[0]
        await store_team(first)
        await store_team(first, "digest")
        targets = (Target(team="report"), Target(team="digest"), Target(team="report", input={"again": "yes"}))
        await store(first, replicas, targets=targets)
        await move(replicas, MINUTE)
        assert sorted(run.team for run in await runs_of(first)) == ["digest", "report", "report"]


async def test_gateways_with_connections_of_their_own_fire_each_tick_once(queue_url: str) -> None:
    """On a real server: five ticks, and requests at the same moment, through three gateways."""
    async with AsyncExitStack() as stack:
        replicas = []
        for index in range(3):
            backend = await stack.enter_async_context(await open_backend(queue_url))
            clock = StandingClock(NINE - MINUTE)
            replicas.append(await stack.enter_async_context(replica(backend.state, clock, name=f"gateway-{index}")))
        first = replicas[0]
        await store_team(first)
        await store(first, replicas, cron="* * * * *")
        hook = await store(first, replicas, slug="hook", type="webhook", cron="", concurrency="Forbid")
        for _ in range(5):
            await move(replicas, MINUTE)
            await asyncio.gather(*(each.triggers.fire(hook) for each in replicas * 2))
        ticks = [each.fired_at for each in await first.triggers.ledger.history("", "daily", limit=50)]
        assert sorted(ticks) == [NINE + MINUTE * index for index in range(5)]
        found = [run.trigger for run in await runs_of(first)]
        assert (found.count("daily"), found.count("hook")) == (5, 1)


@pytest.mark.parametrize("namespace", ["", "acme"])
async def test_a_run_belongs_to_the_tenant_of_its_trigger(namespace: str) -> None:
    """A tenant's trigger runs its own team of a name, or else everybody's; the run is the tenant's."""
    async with fleet(1) as (_, replicas):
        [first] = replicas
        await store_team(first)
        await store(first, namespace=namespace)
        await move(replicas, MINUTE)
        [run] = await runs_of(first)
        assert run.tenant == namespace


def _with(trigger: Trigger, **fields: object) -> Trigger:
    from msgspec.structs import replace

    return replace(trigger, **fields)
