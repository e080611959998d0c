"""When a task that finds no room shall come back: so that as many come as there will be room for. Pure.

Each postponed task books its share of the time to come, in spans of `SPAN_S`. More is booked than fits, because an idle
limit costs more than a task that comes too early: that one is booked again.
"""

from __future__ import annotations

from collections.abc import Callable

from worker.rate_limits.account import Account

SPAN_S = 10.0
_SPANS = 30
_OVERBOOKED = 2.0
SOONEST_S = 1.0
LATEST_S = 3600.0
_UNKNOWN_MOST_S = 5.0


def book(account: Account, cost_s: float, wait_s: float, now: float, random: Callable[[], float]) -> float:
    """In how many seconds a task shall come back whose call costs `cost_s` seconds of the whole limit and would have to
    wait for `wait_s` at least. `random` gives numbers in [0, 1)."""
    if not account.usual_output and wait_s <= _UNKNOWN_MOST_S:  # no call has ended yet: costs are guesses, and too high
        return SOONEST_S + random() * (_UNKNOWN_MOST_S - SOONEST_S)
    first = int((now + wait_s) // SPAN_S)
    for span in [number for number in account.bookings if number < int(now // SPAN_S)]:
        del account.bookings[span]
    for span in range(first, int(now // SPAN_S) + _SPANS):
        booked = account.bookings.get(span, 0.0)
        if booked < _OVERBOOKED * SPAN_S:
            account.bookings[span] = booked + cost_s
            return _within(span, now, wait_s, random)
    account.booked_until = max(account.booked_until, now + max(_SPANS * SPAN_S, wait_s)) + cost_s / _OVERBOOKED
    return max(min(account.booked_until - now, LATEST_S), SOONEST_S)


def _within(span: int, now: float, wait_s: float, random: Callable[[], float]) -> float:
    begin = max(span * SPAN_S, now + wait_s)
    end = max((span + 1) * SPAN_S, begin)
    return max(begin + random() * (end - begin) - now, SOONEST_S)
