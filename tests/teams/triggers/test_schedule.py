"""When cron triggers fire: fields, names, time zones, and the days on which clocks are changed."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.objects import BadObject
from worker.teams.triggers.schedule import Schedule

BERLIN = ZoneInfo("Europe/Berlin")
SPRING = datetime(2026, 3, 29, tzinfo=BERLIN)
"""At two o'clock it is three."""
AUTUMN = datetime(2026, 10, 25, tzinfo=BERLIN)
"""At three o'clock it is two again."""


def _ticks(expression: str, begin: datetime, count: int, zone: str = "Europe/Berlin") -> list[str]:
    schedule, at, found = Schedule(expression, zone), begin.timestamp(), []
    for _ in range(count):
        following = schedule.next_after(at)
        assert following is not None
        found.append(datetime.fromtimestamp(following, BERLIN).strftime("%d %H:%M%z"))
        at = following
    return found


def test_a_time_that_does_not_exist_is_made_up_for_right_after_the_gap() -> None:
    """Half past two is skipped by the clock on the wall: the day has its tick all the same, and one only."""
    assert _ticks("30 2 * * *", SPRING, 2) == ["29 03:00+0200", "30 02:30+0200"]


def test_several_times_within_the_gap_make_one_tick() -> None:
    """They would all come at the same moment, and a tick fires once."""
    assert _ticks("0,20,40 2 * * *", SPRING, 2) == ["29 03:00+0200", "30 02:00+0200"]


def test_a_time_that_comes_twice_counts_once() -> None:
    """Half past two comes in summer time and again in winter time: the first one counts."""
    assert _ticks("30 2 * * *", AUTUMN, 2) == ["25 02:30+0200", "26 02:30+0100"]


def test_counting_from_within_the_second_hour_gives_the_next_day() -> None:
    """A process that starts between the two does not fire the first one, which is past, again."""
    again = datetime(2026, 10, 25, 2, 15, fold=1, tzinfo=BERLIN)
    assert _ticks("30 2 * * *", again, 1) == ["26 02:30+0100"]


def test_every_half_hour_goes_by_real_time() -> None:
    """Where the hour is a star, nothing is skipped and nothing is counted once that happens twice."""
    start = AUTUMN.replace(hour=1, minute=45)
    assert _ticks("*/30 * * * *", start, 5) == [
        "25 02:00+0200",
        "25 02:30+0200",
        "25 02:00+0100",
        "25 02:30+0100",
        "25 03:00+0100",
    ]


@pytest.mark.parametrize(
    ("named", "fields"),
    [
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("0 9 ? * MON-FRI", "0 9 * * 1-5"),
        ("CRON_TZ=Europe/Berlin 0 9 * JAN *", "0 9 * 1 *"),
        ("TZ=Europe/Berlin @daily", "0 0 * * *"),
    ],
)
def test_names_mean_what_cron_means_by_them(named: str, fields: str) -> None:
    """Names of schedules, of days and months, `?`, and a zone before the fields."""
    zone = "UTC" if "TZ=" in named else "Europe/Berlin"
    assert _ticks(named, SPRING, 3, zone) == _ticks(fields, SPRING, 3)


@pytest.mark.parametrize(
    ("expression", "zone", "told"),
    [
        ("", "UTC", "0 fields"),
        ("* * * *", "UTC", "4 fields"),
        ("0 * * * * *", "UTC", "6 fields"),
        ("61 * * * *", "UTC", "Bad minute"),
        ("@every 5m", "UTC", "@hourly"),
        ("0 0 31 2 *", "UTC", "31 2"),
        ("0 0 * * *", "Mars/Olympus", "Europe/Berlin"),
        ("0 0 * * *", "../../etc/passwd", "time_zone"),
    ],
)
def test_what_is_no_schedule_is_refused_with_what_is_allowed(expression: str, zone: str, told: str) -> None:
    """The message says what was wrong."""
    with pytest.raises(BadObject, match=told):
        Schedule(expression, zone)


_EXPRESSIONS = st.sampled_from(
    [
        "* * * * *",
        "*/7 * * * *",
        "30 2 * * *",
        "0,20,40 2 * * *",
        "15 1-3 * * 0",
        "0 */2 * * *",
        "5 3 25 10 *",
        "0 0 * * *",
    ]
)
_AROUND = st.integers(-26 * 3600, 26 * 3600)


@settings(max_examples=60, deadline=None)
@given(_EXPRESSIONS, _AROUND, st.integers(0, 10 * 3600), st.sampled_from([SPRING, AUTUMN]))
def test_ticks_are_the_same_wherever_one_begins_to_count(
    expression: str, offset_s: int, width_s: int, day: datetime
) -> None:
    """The last tick of a span, looked for from its end, is the last of all that follow upon each other from long
    before: two replicas that begin at different moments never see different ticks."""
    schedule = Schedule(expression, "Europe/Berlin")
    after = day.timestamp() + offset_s
    until = after + width_s
    ticks, at = [], after - 3 * 3600.0
    while (following := schedule.next_after(at)) is not None and following <= until:
        ticks.append(following)
        at = following
    expected = next((tick for tick in reversed(ticks) if tick > after), None)
    assert schedule.last_within(after, until) == expected
