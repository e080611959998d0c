"""Triggers at work, in every replica of `shoal serve`: each does the same, and each firing happens once all the same.

There is no leader. What is to be fired has an id that follows from what happened (the tick, the request, the run that
ended), and the first who writes that down carries it out. Whoever sees that somebody has not finished within a few
seconds does the rest.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import structlog
from msgspec.structs import replace

from queue_backends import QueueError, StateChange
from worker.background import BackgroundWork
from worker.definitions import Definitions
from worker.following import Following
from worker.objects import ObjectNotFound, Stored
from worker.teams.runs import Run, Runs
from worker.teams.triggers.clock import Clock, WallClock
from worker.teams.triggers.ends import chain_of, ended_as, waits_for
from worker.teams.triggers.errors import TriggerSuspended
from worker.teams.triggers.firing import MOST_CHAINED, Firing, FiringState, Given, firing_id
from worker.teams.triggers.ledger import FIRINGS, HELLO, Ledger, decode_firing, firing_key
from worker.teams.triggers.model import Trigger
from worker.teams.triggers.performing import Performer
from worker.teams.triggers.status import TriggerStatus, status_of
from worker.teams.triggers.targets import AgentsKnown, Targets
from worker.teams.triggers.timetable import Timetable, cron_firing, new_firing
from worker.teams.triggers.tokens import TriggerTokens

if TYPE_CHECKING:
    from worker.teams.notify.service import Notifications

TAKE_OVER_S: Final = 10.0
"""So long whoever has claimed a firing may take before another process carries on with it."""
RETRY_S: Final = 2.0
RECONCILE_S: Final = 6 * 3600.0
AT_ONCE: Final = 32

log = structlog.get_logger(__name__)

_Key = tuple[str, str]


class Triggers:
    """Fires what is due, while it is entered; `fire` and `status` work without that, too."""

    def __init__(
        self,
        definitions: Definitions,
        runs: Runs,
        agents: AgentsKnown,
        *,
        notifications: Notifications | None = None,
        clock: Clock | None = None,
        take_over_s: float = TAKE_OVER_S,
        name: str = "",
    ) -> None:
        """`name`: of this process, in what it writes down."""
        self._triggers = definitions.triggers
        self._notifications = notifications
        self._clock = clock or WallClock()
        self._take_over_s = take_over_s
        self._name = name or secrets.token_hex(4)
        self.ledger = Ledger(runs.state)
        self.tokens = TriggerTokens(runs.state)
        self.timetable = Timetable(definitions, self.ledger)
        self._performer = Performer(self.ledger, runs, Targets(definitions, agents))
        self._look_at: dict[_Key, float] = {}
        """When each schedule is looked at next."""
        self._take_over_at: dict[str, float] = {}
        """Firings that are not over, by key."""
        self._news = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._following = Following(
            runs.state, FIRINGS, HELLO, what="firings of triggers", changed=self._heard, keep=self._keep_whole
        )
        self._firing = BackgroundWork(self._run, name="triggers")
        self._forget: Callable[[], None] | None = None

    async def __aenter__(self) -> Self:
        """The definitions are entered before."""
        for stored in self._triggers.all():
            self._changed(None, stored)
        self._forget = self._triggers.on_change(self._changed)
        self._following.start()
        self._firing.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._forget is not None:
            self._forget()
        await self._following.stop()
        await self._firing.stop()

    # What fires

    async def fire(
        self, stored: Stored[Trigger], *, source: str = "webhook", body: Any = None, key: str = ""
    ) -> tuple[Firing, bool]:
        """Fire a trigger now: the firing, once all is started, and whether it is a new one. With a `key` that was used
        before, nothing happens again.

        Raises `TriggerSuspended`, `KeyReused`, `BackendUnavailable`; what goes wrong with targets stands in the firing.
        """
        if stored.value.suspended:
            raise TriggerSuspended(f"trigger {stored.value.slug!r} is suspended: resume it first")
        number = firing_id(stored, source, key or secrets.token_hex(16))
        now = self._clock.now()
        wanted = new_firing(stored, number, source, fired_at=now, by=self._name, now=now)
        firing, is_new = await self.ledger.claim(replace(wanted, is_single=not key), Given(body=body))
        return await self._performer.perform(firing), is_new

    async def on_run_end(self, run: Run) -> None:
        """A run has ended: fire those that wait for that, and tell whoever wants to know. Telling it again does nothing
        more, so that after a crash the drivers may. Raises `BackendUnavailable`."""
        if run.header.parent is not None or run.header.is_local:
            return
        for stored in self._triggers.all():
            if waits_for(stored.value, run):
                await self._claim_end(stored, run)
        if self._notifications is not None:
            await self._notifications.on_run_end(run)

    async def status(self, stored: Stored[Trigger]) -> TriggerStatus:
        """What is known of a trigger. Raises `BackendUnavailable`."""
        return await status_of(stored, self.ledger, self.timetable, self.tokens, now=self._clock.now())

    async def _claim_end(self, stored: Stored[Trigger], run: Run) -> None:
        number = firing_id(stored, "team-output", run.header.id)
        now = self._clock.now()
        firing = new_firing(stored, number, "team-output", fired_at=run.state.ended_at or now, by=self._name, now=now)
        firing = replace(firing, chain=chain_of(run) + 1, tenant=stored.value.namespace or run.header.tenant)
        if firing.chain > MOST_CHAINED:
            firing = replace(
                firing,
                state=FiringState.FAILED,
                reason=f"{MOST_CHAINED} triggers have fired one after another up to run {run.header.id}: they go round",
            )
            log.error("a chain of triggers is cut", trigger=stored.value.slug, run=run.header.id)
        given = Given(output=run.state.output, run=run.header.id, team=run.header.team, phase=ended_as(run.state))
        firing, _ = await self.ledger.claim(firing, given)
        if not firing.is_noted:
            self._take_over_at[firing_key(firing)] = 0.0
            self._news.set()

    # The loop

    async def _run(self) -> None:
        while True:
            self._news.clear()
            now = self._clock.now()
            try:
                await self._do_due(now)
            except Exception:  # one that cannot be fired stops no other
                log.exception("triggers cannot be looked at, trying again")
                self._look_at = {key: max(at, now + RETRY_S) for key, at in self._look_at.items()}
            moments = (*self._look_at.values(), *self._take_over_at.values())
            await self._clock.wait(self._news, min(moments, default=math.inf))

    async def _do_due(self, now: float) -> None:
        """Everything whose time has come, many at once."""
        looks = [key for key, at in self._look_at.items() if at <= now]
        rests = [key for key, at in self._take_over_at.items() if at <= now]
        async with asyncio.TaskGroup() as tasks:
            for where in looks:
                tasks.create_task(self._bounded(self._look(where, now), where))
            for key in rests:
                tasks.create_task(self._bounded(self._carry_on(key, now), key))

    async def _bounded(self, work: Awaitable[None], what: _Key | str) -> None:
        async with self._slots:
            try:
                await work
            except QueueError as error:
                log.warning("a trigger has to wait for the store", trigger=what, error=str(error))
                self._again(what)
            except Exception:
                log.exception("a trigger has failed", trigger=what)
                self._again(what)

    def _again(self, what: _Key | str) -> None:
        at = self._clock.now() + RETRY_S
        if isinstance(what, str):
            self._take_over_at[what] = at
        elif what in self._look_at:
            self._look_at[what] = at

    async def _look(self, where: _Key, now: float) -> None:
        namespace, slug = where
        stored = self._triggers.get(slug, namespace)
        if stored is None:
            self._look_at.pop(where, None)
            return
        self._look_at[where] = math.inf
        tick = await self.timetable.due(stored, now)
        if tick is not None:
            try:
                stored = await self._triggers.read(slug, namespace)  # it may have been changed this very moment
            except ObjectNotFound:
                return
            tick = await self.timetable.due(stored, now)
        if tick is not None:
            firing, is_new = await self.ledger.claim(cron_firing(stored, tick, by=self._name, now=now))
            await self.timetable.move(stored, tick)
            if is_new:
                await self._perform(firing)
        if self._look_at.get(where) == math.inf:  # otherwise it was changed meanwhile, and is looked at anew
            following = self.timetable.next_tick(stored, max(now, tick or 0.0))
            self._look_at[where] = following if following is not None else math.inf

    async def _carry_on(self, key: str, now: float) -> None:
        """Do the rest of a firing that somebody has begun."""
        self._take_over_at.pop(key, None)
        firing = await self.ledger.read(key)
        if firing is not None and not firing.is_noted:
            if firing.claimed_by != self._name:
                log.info("a firing is carried on", trigger=firing.trigger, firing=firing.id, begun_by=firing.claimed_by)
            await self._perform(firing)

    async def _perform(self, firing: Firing) -> None:
        key = firing_key(firing)
        self._take_over_at[key] = self._clock.now() + self._take_over_s  # should this go wrong
        await self._performer.perform(firing)
        self._take_over_at.pop(key, None)

    # News

    def _changed(self, before: Stored[Trigger] | None, after: Stored[Trigger] | None) -> None:
        stored = after or before
        if stored is None:
            return
        where = (stored.value.namespace, stored.value.slug)
        if after is None or after.value.type != "cron" or after.value.suspended:
            self._look_at.pop(where, None)
        else:
            self._look_at[where] = 0.0
        self._news.set()

    def _heard(self, change: StateChange) -> None:
        firing = decode_firing(change.value) if change.value is not None else None
        if firing is None or firing.is_noted:
            self._take_over_at.pop(change.key, None)
        elif change.key not in self._take_over_at:
            self._take_over_at[change.key] = self._clock.now() + self._take_over_s
            self._news.set()

    async def _keep_whole(self) -> None:
        await self._following.read_again_and_again(self._read_all, RECONCILE_S)

    async def _read_all(self) -> None:
        async for key, value in self.ledger.state.scan(FIRINGS):
            if key != HELLO:
                self._heard(StateChange(key=key, value=value))
