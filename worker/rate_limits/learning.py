"""What an account learns from answers: the vendor's limits, and how to go slower when it refuses calls. Pure."""

from __future__ import annotations

from msgspec import Struct

from providers import LimitWindow, VendorLimits
from worker.rate_limits.account import USED_OVER_S, Account
from worker.rate_limits.rules import INPUT_TOKENS, KINDS, OUTPUT_TOKENS, REQUESTS, TOKENS, RateLimit

LONGEST_CLOSURE_S = 600.0
_FIRST_CLOSURE_S = 1.0
_LONGEST_GUESSED_CLOSURE_S = 60.0
_SLOWER = 0.9
_LEAST_PACE = 0.05
_FASTER_PER_MIN = 0.1
"""Of the limit, each minute."""
_GUESS_GROWS_PER_MIN = 0.1
_GUESS_FORGOTTEN = 20.0
"""A guess that has grown by so much without a refusal was none."""
_LONGEST_MINUTE_S = 75.0
"""A limit per minute is whole again in a minute; one that takes longer is no limit per minute, whatever its name."""
_USUAL_WEIGHT = 0.1
_FIRST_CALLS = 2
_MOST_ANSWERS = 1_000
_SHORTEST_PAST_S = 5.0


class News(Struct, frozen=True, kw_only=True):
    """What one call has told, all but what it used."""

    started_at: float
    """When it was sent, by the clock of the fleet."""
    answered_at: float
    """When its headers came."""
    ended_at: float
    ended_well: bool
    limits: VendorLimits | None = None
    refused: bool = False
    retry_after_s: float | None = None
    output_tokens: int | None = None
    """Of a call that was completed."""


def learn(account: Account, limit: RateLimit, news: News, now: float) -> None:
    """Take in what one call has told."""
    if news.ended_well:
        account.usual_s = _average(account.usual_s, max(news.ended_at - news.started_at, 0.001))
        account.answers = min(account.answers + 1, _MOST_ANSWERS)
    if news.output_tokens:
        account.usual_output = _average(account.usual_output, news.output_tokens)
    if limit.learn and news.limits is not None:
        _learn_limits(account, news.limits, news.answered_at, now)
    if news.refused:
        _close(account, limit, news, now)
    elif news.ended_well and news.started_at >= account.closed_until:
        account.refusals = 0


def _average(known: float, one: float) -> float:
    return known + _USUAL_WEIGHT * (one - known) if known else one


def calls_at_once(account: Account, limit: RateLimit) -> int | None:
    """How many calls may be under way. Where nobody knows any rate, it begins with a few, and each answer allows one
    more: so the first calls tell the limits, or meet them, before all others have been sent."""
    if account.rates or not limit.learn or not limit.is_vendors or account.answers >= _MOST_ANSWERS:
        return limit.concurrent
    return min(_FIRST_CALLS + account.answers, limit.concurrent or _MOST_ANSWERS)


def _learn_limits(account: Account, told: VendorLimits, at: float, now: float) -> None:
    for kind in KINDS:
        window: LimitWindow | None = getattr(told, kind)
        if window is None or window.window_s is None or (window.reset_s or 0.0) > _LONGEST_MINUTE_S:
            continue
        if window.limit:
            account.learned[kind] = window.limit * 60.0 / window.window_s
        rate = account.rates.get(kind)
        if window.remaining is not None and rate is not None and kind in account.levels:
            # More than was left then, and has come since, cannot be left now.
            most = window.remaining + rate / 60.0 * max(now - at, 0.0)
            account.levels[kind] = min(account.levels[kind], most)


def _close(account: Account, limit: RateLimit, news: News, now: float) -> None:
    """The vendor refused a call: nobody calls until it may be willing again, and then a little slower.

    Calls that were under way when another one was refused tell nothing new; they can only ask for a longer pause.
    """
    account.refused_calls += 1
    is_new = news.started_at >= account.closed_at
    if is_new:
        account.refusals += 1
        account.pace = max(account.pace * _SLOWER, _LEAST_PACE)
        if not account.rates or account.guessed is not None:
            account.guessed = max(_SLOWER * (account.guessed or _measured(account, now)), 1.0)
        account.closed_at = now
    wait_s = news.retry_after_s
    if wait_s is None:
        wait_s = min(_FIRST_CLOSURE_S * 2.0 ** (account.refusals - 1), _LONGEST_GUESSED_CLOSURE_S) if is_new else 0.0
    account.closed_until = max(account.closed_until, now + min(wait_s, LONGEST_CLOSURE_S))
    for kind, level in account.levels.items():
        account.levels[kind] = min(level, 0.0)


def _measured(account: Account, now: float) -> float:
    """Requests per minute, lately."""
    past_s = min(max(now - account.born_at, _SHORTEST_PAST_S), USED_OVER_S)
    return account.meter(REQUESTS).lately(now) * USED_OVER_S / past_s


def recover(account: Account, minutes: float) -> None:
    """Time has passed: go a little faster again."""
    account.pace = min(account.pace + _FASTER_PER_MIN * minutes, 1.0)
    if account.guessed is not None:
        account.guessed *= (1 + _GUESS_GROWS_PER_MIN) ** minutes
        if account.guessed > _GUESS_FORGOTTEN * max(_measured(account, account.at), 1.0):
            account.guessed, account.answers = None, _MOST_ANSWERS


def rates_in_force(account: Account, limit: RateLimit) -> dict[str, float]:
    """Per minute, by kind: what is set, or what the vendor tells if that is less, or what was guessed."""
    rates: dict[str, float] = {}
    for kind in KINDS:
        known = [rate for rate in (limit.rate(kind), account.learned.get(kind) if limit.learn else None) if rate]
        if known:
            rates[kind] = min(known) * account.pace
    if account.guessed is not None and REQUESTS not in rates:
        rates[REQUESTS] = account.guessed
    return rates


def counted_tokens(input_tokens: float, output_tokens: float) -> dict[str, float]:
    """What a call uses of each kind."""
    return {
        REQUESTS: 1.0,
        TOKENS: input_tokens + output_tokens,
        INPUT_TOKENS: input_tokens,
        OUTPUT_TOKENS: output_tokens,
    }
