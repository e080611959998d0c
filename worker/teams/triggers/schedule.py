"""When a cron trigger fires: five fields in a time zone, as Debian's cron reads them.

A schedule whose minutes and hours are both plain numbers goes by the clock on the wall: a time that does not exist when
clocks go forward is made up for right after the gap, and one that comes twice when they go back counts the first time
alone. One whose minutes or hours begin with `*` goes by real time: it neither skips nor repeats anything.
"""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime
from functools import lru_cache

from cronsim import CronSim, CronSimError

from worker.objects.errors import BadObject

NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = 5
_LONGEST = 500
_FIRST_WINDOW_S = 120.0
_WIDER = 8


class Schedule:
    """The ticks of a cron expression. They are the same wherever one begins to count."""

    def __init__(self, expression: str, time_zone: str = "UTC") -> None:
        """`TZ=<zone> ` or `CRON_TZ=<zone> ` before the fields comes before `time_zone`. Raises `BadObject`."""
        fields, zone = _split(expression, time_zone)
        self._fields = fields
        self._zone = _zone(zone)
        try:
            next(CronSim(fields, datetime(2024, 1, 1, tzinfo=UTC)))
        except CronSimError as error:
            raise BadObject(
                f"cron is {expression[:100]!r}: {error}; it has five fields (minute, hour, day of month, month, "
                f"weekday), such as '30 9 * * 1-5', or is one of {', '.join(NAMES)}"
            ) from error
        except StopIteration:
            raise BadObject(f"cron is {expression[:100]!r}: that day never comes") from None

    def next_after(self, moment: float) -> float | None:
        """The first tick after a moment, both in Unix seconds. None: there is none any more."""
        begin = datetime.fromtimestamp(moment, UTC).astimezone(self._zone)
        for tick in CronSim(self._fields, begin):
            at = tick.timestamp()
            if at > moment:  # of an hour that comes twice, the times of the first are given in the second, too
                return at
        return None

    def last_within(self, after: float, until: float) -> float | None:
        """The last tick that is later than `after`, and not later than `until`."""
        window_s = _FIRST_WINDOW_S
        while True:
            begin = max(after, until - window_s)
            if (last := self._last(begin, until)) is not None:
                return last
            if begin <= after:
                return None
            window_s *= _WIDER

    def _last(self, after: float, until: float) -> float | None:
        last, tick = None, self.next_after(after)
        while tick is not None and tick <= until:
            last, tick = tick, self.next_after(tick)
        return last


@lru_cache(maxsize=10_000)
def schedule_of(expression: str, time_zone: str) -> Schedule:
    """A schedule, read once. Raises `BadObject`."""
    return Schedule(expression, time_zone)


def _split(expression: str, time_zone: str) -> tuple[str, str]:
    if len(expression) > _LONGEST:
        raise BadObject(f"cron is {expression[:40]!r}…, {len(expression)} characters: use at most {_LONGEST}")
    given = expression.strip()
    for prefix in ("CRON_TZ=", "TZ="):
        if given.startswith(prefix):
            time_zone, _, given = given.removeprefix(prefix).partition(" ")
            break
    given = given.strip()
    if given.startswith("@"):
        if given not in NAMES:
            raise BadObject(f"cron is {expression[:100]!r}: use five fields, or one of {', '.join(NAMES)}")
        return NAMES[given], time_zone
    fields = given.split()
    if len(fields) != _FIELDS:
        raise BadObject(
            f"cron is {expression[:100]!r}, which has {len(fields)} fields: it has five (minute, hour, day of month, "
            "month, weekday)"
        )
    return " ".join("*" if field == "?" else field for field in fields), time_zone


def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name or "UTC")
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise BadObject(f"time_zone is {name[:100]!r}: use a name such as 'Europe/Berlin' or 'UTC'") from None
