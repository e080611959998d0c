"""Several gateways' trigger services in one process: on one store, each with its own view of it, and a clock that
stands still until a test moves it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

from queue_backends import Backend, StateStore, open_backend
from worker.agents.roster import Roster
from worker.definitions import Definitions
from worker.objects import Stored
from worker.settings import Settings
from worker.teams.notify.service import Notifications
from worker.teams.plan import InputSpec, Plan, Role, Step, Team
from worker.teams.run_events import RunEnded
from worker.teams.run_header import RunSummary
from worker.teams.run_state import Phase
from worker.teams.runs import Run, Runs
from worker.teams.team_objects import StoredTeam
from worker.teams.triggers.model import Target, Trigger
from worker.teams.triggers.service import Triggers

WITHIN_S = 30.0
NINE = datetime(2026, 11, 2, 9, 0, tzinfo=UTC).timestamp()
"""A Monday."""
MINUTE = 60.0
HOUR = 3600.0


class StandingClock:
    """Tells the time that it is set to."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._moved: set[asyncio.Event] = set()
        self.waiting: dict[int, float] = {}
        """Who waits, until when."""

    def now(self) -> float:
        """Unix seconds."""
        return self._now

    def set(self, now: float) -> None:
        """Move it."""
        self._now = now
        for moved in self._moved:
            moved.set()

    async def wait(self, news: asyncio.Event, until: float) -> None:
        """As the wall clock, without ever waiting for the wall clock."""
        moved = asyncio.Event()
        self._moved.add(moved)
        while not news.is_set() and self._now < until:
            self.waiting[id(news)] = until
            moved.clear()
            waits = [asyncio.create_task(each.wait()) for each in (moved, news)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self.waiting.pop(id(news), None)
                for each in waits:
                    each.cancel()
        self._moved.discard(moved)

    def is_at_rest(self, services: int) -> bool:
        """Whether all wait for a later moment."""
        return len(self.waiting) >= services and all(until > self._now for until in self.waiting.values())


class Yielding:
    """A store over a network, as far as it matters: while one waits for its answer, others have theirs."""

    def __init__(self, state: StateStore, trouble: Callable[[], None]) -> None:
        """`trouble` may raise before and after each request."""
        self._state = state
        self._trouble = trouble

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._state, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def asked(*given: Any, **more: Any) -> Any:
            await asyncio.sleep(0)
            self._trouble()
            answer = await found(*given, **more)
            await asyncio.sleep(0)
            self._trouble()  # it was done, and the answer was lost
            return answer

        return asked


class Replica:
    """What one gateway has."""

    def __init__(self, definitions: Definitions, runs: Runs, triggers: Triggers, clock: StandingClock) -> None:
        self.definitions = definitions
        self.runs = runs
        self.triggers = triggers
        self.clock = clock


@asynccontextmanager
async def replica(
    state: StateStore,
    clock: StandingClock,
    *,
    name: str = "one",
    wrap: Callable[[Runs], Runs] = lambda runs: runs,
    trouble: Callable[[], None] = lambda: None,
) -> AsyncIterator[Replica]:
    """One gateway's part."""
    async with Definitions(state) as definitions:
        runs = wrap(Runs(cast("StateStore", Yielding(state, trouble))))
        roster = Roster(Settings(), definitions)
        service = Triggers(
            definitions, runs, roster, notifications=Notifications(state), clock=clock, take_over_s=10.0, name=name
        )
        async with service:
            yield Replica(definitions, runs, service, clock)


@asynccontextmanager
async def fleet(
    count: int, now: float = NINE - MINUTE, *, skew_s: float = 0.0
) -> AsyncIterator[tuple[Backend, list[Replica]]]:
    """So many gateways on one store; each one's clock is ahead of the one before by `skew_s`."""
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(await open_backend("memory://"))
        replicas = [
            await stack.enter_async_context(
                replica(backend.state, StandingClock(now + index * skew_s), name=f"gateway-{index}")
            )
            for index in range(count)
        ]
        yield backend, replicas


async def move(replicas: list[Replica], by_s: float) -> None:
    """Let time pass, and wait until nobody has anything to do."""
    for clock in {id(each.clock): each.clock for each in replicas}.values():
        clock.set(clock.now() + by_s)
    await at_rest(replicas)


async def at_rest(replicas: list[Replica]) -> None:
    """Wait until all services wait for a later moment, and no news is on its way."""
    quiet = 0
    async with asyncio.timeout(WITHIN_S):
        while quiet < 20:
            await asyncio.sleep(0.001)
            sharing = Counter(id(each.clock) for each in replicas)
            is_quiet = all(each.clock.is_at_rest(sharing[id(each.clock)]) for each in replicas)
            quiet = quiet + 1 if is_quiet else 0


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that is going to happen."""
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0.002)


def plan(name: str = "report", *, inputs: tuple[InputSpec, ...] = (), notify: str = "") -> Plan:
    """A team of one step."""
    step = Step(name="write", role="writer")
    team = Team(name=name, roles=(Role(name="writer"),), steps=(step,), inputs=inputs, notify=notify)
    return Plan(name=name, teams=(team,))


async def store_team(where: Replica, name: str = "report", namespace: str = "", **more: Any) -> None:
    """Store such a team."""
    await where.definitions.teams.create(StoredTeam(slug=name, namespace=namespace, plan=plan(name, **more)))


async def store(where: Replica, replicas: list[Replica] | None = None, **fields: Any) -> Stored[Trigger]:
    """Store a trigger at the time of the replica's clock, and wait until all know of it."""
    given = {"slug": "daily", "type": "cron", "cron": "0 9 * * *", "targets": (Target(team="report"),), **fields}
    with written_at(where.clock):
        stored = await where.definitions.triggers.create(Trigger(**given))
    await known(stored, replicas or [where])
    return stored


async def change(where: Replica, replicas: list[Replica], slug: str = "daily", **fields: Any) -> Stored[Trigger]:
    """Change some of its fields, as `store`."""
    with written_at(where.clock):
        stored = await where.definitions.triggers.change(slug, lambda value: _with(value, fields))
    await known(stored, replicas)
    return stored


async def known(stored: Stored[Trigger], replicas: list[Replica]) -> None:
    """Wait until all mirrors have this version, and have taken note."""
    value = stored.value
    for each in replicas:
        await until(lambda each=each: each.definitions.triggers.get(value.slug, value.namespace) == stored)  # type: ignore[misc]  # a default binds it
    await at_rest(replicas)


def _with(value: Trigger, fields: dict[str, Any]) -> Trigger:
    from msgspec.structs import replace

    return replace(value, **fields)


@contextlib.contextmanager
def written_at(clock: StandingClock) -> Any:
    """Objects that are written meanwhile say that it was then."""
    import worker.objects.store as module

    class _Time:
        time = staticmethod(clock.now)

    before, module.time = module.time, _Time  # type: ignore[attr-defined, assignment]  # the module reads the clock by it
    try:
        yield
    finally:
        module.time = before  # type: ignore[attr-defined]  # as it was


async def runs_of(where: Replica) -> list[RunSummary]:
    """All runs, the oldest first."""
    found = await where.runs.list(limit=500)
    return sorted(found, key=lambda each: (each.created_at, each.id))


async def end(where: Replica, run_id: str, phase: Phase = Phase.SUCCEEDED, **more: Any) -> Run:
    """Let a run have ended; it as it is then."""
    at = where.clock.now()
    await where.runs.append(run_id, RunEnded(at=at, phase=phase, **more))
    return await where.runs.read(run_id)
