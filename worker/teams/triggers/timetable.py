"""Which cron triggers are due, and when the next one is.

Each process looks for itself; what is due it claims, and of several that do, one succeeds. Of ticks that nobody could
fire in time, the last one is made up for, unless it is older than the trigger's starting deadline.
"""

from __future__ import annotations

import math

import structlog

from worker.definitions import Definitions
from worker.objects import BadObject, Stored
from worker.teams.triggers.firing import Firing, firing_id
from worker.teams.triggers.ledger import Cursor, Ledger
from worker.teams.triggers.model import Trigger
from worker.teams.triggers.schedule import Schedule, schedule_of

log = structlog.get_logger(__name__)


class Timetable:
    """The schedules of all cron triggers."""

    def __init__(self, definitions: Definitions, ledger: Ledger) -> None:
        self._triggers = definitions.triggers
        self._ledger = ledger

    def next_tick(self, stored: Stored[Trigger], after: float) -> float | None:
        """When a trigger fires next; None: never."""
        if stored.value.type != "cron" or stored.value.suspended:
            return None
        schedule = _schedule(stored.value)
        return schedule.next_after(after) if schedule is not None else None

    async def due(self, stored: Stored[Trigger], now: float) -> float | None:
        """The tick of a trigger that has to be fired now. Once that is claimed, `move` on. Raises
        `BackendUnavailable`."""
        trigger = stored.value
        schedule = _schedule(trigger)
        if trigger.type != "cron" or trigger.suspended or schedule is None:
            return None
        _, cursor = await self._ledger.cursor(trigger.namespace, trigger.slug)
        after = await self._looked_at(stored, cursor)
        deadline = now - trigger.starting_deadline_s
        tick = schedule.last_within(max(after, deadline), now)
        if tick is None:
            missed = schedule.next_after(after)
            if missed is not None and missed <= deadline:
                log.warning("ticks of a trigger were missed", trigger=trigger.slug, since=missed, until=deadline)
                await self.move(stored, deadline)
            elif cursor is None or (cursor.object_id, cursor.version) != (stored.id, stored.version):
                await self.move(stored, after)  # so that its versions need not be read again
        return tick

    async def move(self, stored: Stored[Trigger], tick: float) -> None:
        """No tick up to this one is fired any more. Raises `BackendUnavailable`."""
        trigger = stored.value
        wanted = Cursor(object_id=stored.id, version=stored.version, tick=tick)
        while True:
            raw, cursor = await self._ledger.cursor(trigger.namespace, trigger.slug)
            if cursor is not None and not _is_behind(cursor, wanted):
                return
            if await self._ledger.move(trigger.namespace, trigger.slug, raw, wanted):
                return

    async def _looked_at(self, stored: Stored[Trigger], cursor: Cursor | None) -> float:
        """Up to which moment ticks are no matter any more: they were looked at, or this schedule was not in force."""
        done = cursor.tick if cursor is not None and cursor.object_id == stored.id else -math.inf
        if cursor is not None and (cursor.object_id, cursor.version) == (stored.id, stored.version):
            return done
        return max(done, await self._in_force_since(stored))

    async def _in_force_since(self, stored: Stored[Trigger]) -> float:
        """Since when the trigger has had the schedule that it has, without a pause: other changes matter not."""
        value, since = stored.value, stored.updated_at
        for each in await self._triggers.versions(value.slug, value.namespace):
            if each.id != stored.id or each.version > stored.version:
                continue
            then = each.value
            if (then.type, then.cron, then.time_zone) != (value.type, value.cron, value.time_zone) or then.suspended:
                break
            since = min(since, each.updated_at)
        return since


def cron_firing(stored: Stored[Trigger], tick: float, *, by: str, now: float) -> Firing:
    """The firing of a tick."""
    return new_firing(stored, firing_id(stored, "cron", int(tick)), "cron", fired_at=tick, by=by, now=now)


def new_firing(stored: Stored[Trigger], number: str, source: str, *, fired_at: float, by: str, now: float) -> Firing:
    """A firing of a trigger as it is at this moment."""
    trigger = stored.value
    return Firing(
        id=number,
        trigger=trigger.slug,
        namespace=trigger.namespace,
        object_id=stored.id,
        source=source,  # type: ignore[arg-type]  # each caller gives one of the words
        fired_at=fired_at,
        claimed_at=now,
        claimed_by=by,
        targets=trigger.targets,
        concurrency=trigger.concurrency,
        tenant=trigger.namespace,
    )


def _is_behind(cursor: Cursor, wanted: Cursor) -> bool:
    if cursor.object_id != wanted.object_id:
        return cursor.object_id < wanted.object_id
    return (cursor.tick, cursor.version) < (wanted.tick, wanted.version)


def _schedule(trigger: Trigger) -> Schedule | None:
    try:
        return schedule_of(trigger.cron, trigger.time_zone)
    except BadObject as error:  # stored by another version, or the zone is not known here
        log.warning("a trigger's schedule cannot be read here", trigger=trigger.slug, error=str(error))
        return None
