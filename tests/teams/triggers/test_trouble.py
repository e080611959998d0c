"""Gateways that die in the middle, and a store that fails now and then: whatever comes, nothing is fired twice, and
what was begun is finished."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from queue_backends import Backend, BackendUnavailable, open_backend
from tests.teams.triggers.replicas import MINUTE, NINE, Replica, StandingClock, known, move, replica, store, store_team
from worker.teams.triggers.firing import Firing, FiringState
from worker.teams.triggers.ledger import FIRINGS, HELLO, decode_firing
from worker.teams.triggers.model import Target

ROUNDS = 12


class _Fleet:
    """Three gateways, of which now one and now another is killed and begun again."""

    def __init__(self, backend: Backend, dice: random.Random) -> None:
        self.backend = backend
        self.dice = dice
        self.now = NINE - MINUTE
        self.is_troubled = False
        self.alive: dict[int, tuple[AsyncExitStack, Replica]] = {}

    async def begin(self, index: int) -> None:
        stack = AsyncExitStack()
        clock = StandingClock(self.now + index)  # each goes a little ahead of the one before
        name = f"gateway-{index}"
        context = replica(self.backend.state, clock, name=name, trouble=self._trouble)
        self.alive[index] = (stack, await stack.enter_async_context(context))

    async def kill(self, index: int) -> None:
        stack, _ = self.alive.pop(index)
        await stack.aclose()

    async def tick(self) -> None:
        """A minute passes; everybody is interrupted somewhere in what that begins."""
        self.now += MINUTE
        for index, (_, each) in self.alive.items():
            each.clock.set(self.now + index)
        for _ in range(self.dice.randrange(60)):
            await asyncio.sleep(0)

    def _trouble(self) -> None:
        if self.is_troubled and self.dice.random() < 0.04:
            raise BackendUnavailable("the store is away")

    @property
    def replicas(self) -> list[Replica]:
        return [each for _, each in self.alive.values()]


async def _firings(backend: Backend) -> list[Firing]:
    found = [decode_firing(value) async for key, value in backend.state.scan(FIRINGS) if key != HELLO]
    return [firing for firing in found if firing is not None]


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_is_fired_twice_and_nothing_is_left_half_done(seed: int) -> None:
    """Twelve minutes of kills at random moments and lost answers. Afterwards every claim has been carried out, each
    tick has one firing with one run for each target, and the last tick was not lost."""
    dice = random.Random(seed)
    async with await open_backend("memory://") as backend:
        fleet = _Fleet(backend, dice)
        for index in range(3):
            await fleet.begin(index)
        first = fleet.replicas[0]
        await store_team(first)
        stored = await store(
            first, fleet.replicas, cron="* * * * *", targets=(Target(team="report"), Target(team="report"))
        )
        fleet.is_troubled = True
        for _ in range(ROUNDS):
            await fleet.tick()
            await _some_die(fleet, dice.randrange)
        fleet.is_troubled = False
        for index in set(range(3)) - set(fleet.alive):
            await fleet.begin(index)
        await known(stored, fleet.replicas)
        for _ in range(4):
            await move(fleet.replicas, 12.0)
        firings = await _firings(backend)
        history = await fleet.replicas[0].triggers.ledger.history("", "daily", limit=100)
        assert all(firing.is_noted for firing in firings)
        assert sorted(each.id for each in history) == sorted(each.id for each in firings)
        ticks = [firing.fired_at for firing in firings]
        assert len(ticks) == len(set(ticks))
        assert {firing.state for firing in firings} == {FiringState.FIRED}
        assert max(ticks) == NINE - MINUTE + ROUNDS * MINUTE
        active = [run.id async for run in fleet.replicas[0].runs.active.all()]
        assert sorted(active) == sorted(run_id for firing in firings for run_id in firing.run_ids)
        counts = await fleet.replicas[0].triggers.ledger.counts("", "daily", stored.id)
        assert counts["fired"] == len(firings)
        for index in list(fleet.alive):
            await fleet.kill(index)


async def _some_die(fleet: _Fleet, choose: Callable[[int], int]) -> None:
    """One of them is killed, or a dead one begins again."""
    index = choose(3)
    if index in fleet.alive:
        await fleet.kill(index)
    else:
        await fleet.begin(index)
