"""One step of one worker on a limited account: what it says, and what it gets. Pure.

Room is given out in a fair order over the whole fleet. Tenants take turns by what they have been given (start-time
fair queueing), each tenant's calls come by urgency and age. A worker takes only what is not due to calls that wait in
others; these know when their turn will come, and wake up then.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter

from msgspec import Struct

from worker.rate_limits.account import GRACE_S, Account, Demand, Holder
from worker.rate_limits.learning import News, calls_at_once, learn, rates_in_force, recover
from worker.rate_limits.postponing import book
from worker.rate_limits.rules import KINDS, REQUESTS, RateLimit

HOLDER_TTL_S = 30.0
"""A worker that is heard of no more holds its calls for so long."""
MOST_WISHES = 128
_LONGEST_SLEEP_S = 5.0
_FOR_A_FREE_CALL_S = 1.0
"""Whoever waits for a call to end looks again so often, should nobody have told it."""
_SHORTEST_SLEEP_S = 0.002
_SOON_S = 0.02
_MOST_TENANTS = 500
_ALMOST = 1e-9


class Wish(Struct, frozen=True, kw_only=True):
    """A call that waits in the asking worker."""

    id: str
    tenant: str
    urgency: int
    since: float
    needs: Mapping[str, float]
    patience_s: float
    """It rather goes away than to wait longer."""


class Ask(Struct, frozen=True, kw_only=True):
    """All that a worker has to say at one moment."""

    worker: str
    now: float
    running: int = 0
    """Its calls that are under way."""
    wishes: Sequence[Wish] = ()
    used: Mapping[str, float] = {}
    """By how much ended calls needed more, or less, than was taken for them."""
    news: Sequence[News] = ()
    share: float = 1.0
    """Of the limits, that it may use: less than 1 while it cannot ask the others."""


class Answer(Struct, kw_only=True):
    """What comes of it."""

    granted: list[str]
    """Ids of calls that may be sent."""
    postponed: dict[str, float]
    """Ids of calls that would wait for too long, and in how many seconds they shall come back."""
    wake_in_s: float | None = None
    """The first of the others may be sent then."""
    ring: bool = False
    """Calls of other workers may be sent now, and these do not know yet."""
    closed_s: float = 0.0
    """For how long the vendor wants no calls."""


def ask(
    before: Account, limit: RateLimit, said: Ask, *, random: Callable[[], float] = random.random
) -> tuple[Account, Answer]:
    """The account after a worker's step, and the answer."""
    account = before.copied()
    now = _bring_up_to_date(account, limit, max(said.now, before.at), said.share)
    for kind, amount in said.used.items():
        account.meter(kind).add(amount, now)
        if kind in account.levels:
            account.levels[kind] -= amount
    for news in said.news:
        learn(account, limit, news, now)
    if said.news:
        _set_rates(account, limit, said.share)
    _cap(account, limit)
    mine = account.holders.pop(said.worker, Holder())
    account.holders = {name: holder for name, holder in account.holders.items() if _lives(holder, now)}
    round_ = _Round(account, limit, said, mine)
    answer = round_.play(random)
    _prune_tenants(account)
    return account, answer


def _lives(holder: Holder, now: float) -> bool:
    return holder.expires_at > now or holder.wakes_at + GRACE_S > now


def _bring_up_to_date(account: Account, limit: RateLimit, now: float, share: float) -> float:
    passed_s = min(max(now - account.at, 0.0), 3600.0)
    for kind, level in account.levels.items():
        account.levels[kind] = level + account.rates.get(kind, 0.0) / 60.0 * passed_s
    account.at = now
    account.born_at = account.born_at or now
    recover(account, passed_s / 60.0)
    _set_rates(account, limit, share)
    _cap(account, limit)
    return now


def _set_rates(account: Account, limit: RateLimit, share: float) -> None:
    account.rates = {kind: rate * share for kind, rate in rates_in_force(account, limit).items()}
    most = calls_at_once(account, limit)
    account.concurrent = None if most is None else max(int(most * share), 1)
    account.levels = {kind: account.levels.get(kind, _capacity(account, limit, kind)) for kind in account.rates}


def _capacity(account: Account, limit: RateLimit, kind: str) -> float:
    capacity = account.rates[kind] / 60.0 * limit.burst_s
    return max(capacity, 1.0) if kind == REQUESTS else capacity


def _cap(account: Account, limit: RateLimit) -> None:
    for kind, level in account.levels.items():
        account.levels[kind] = min(level, _capacity(account, limit, kind))


class _Line:
    """The calls of one tenant, those of the asking worker and those of others, the most urgent and oldest first."""

    __slots__ = ("mine", "others")

    def __init__(self) -> None:
        self.mine: list[Wish] = []
        self.others: list[tuple[int, float, Demand, Holder]] = []
        """Urgency, since when, what of, and whose."""

    def settle(self) -> None:
        """Put them in order: the first ones at the end."""
        self.mine.sort(key=lambda wish: (wish.urgency, wish.since), reverse=True)
        self.others.sort(key=itemgetter(0, 1), reverse=True)

    def next(self) -> tuple[Wish | None, Mapping[str, float], Holder | None]:
        """Take the first one out: it is ours, or what it needs and who has it."""
        wish = self.mine[-1] if self.mine else None
        if self.others:
            urgency, since, demand, holder = self.others[-1]
            if wish is None or (urgency, since) < (wish.urgency, wish.since):
                self.others.pop()
                return None, demand.needs, holder
        assert wish is not None  # noqa: S101 - an empty line has left the round
        return self.mine.pop(), wish.needs, None

    def __bool__(self) -> bool:
        return bool(self.mine or self.others)


class _Round:
    """Gives out what there is, in order, and looks ahead for those who have to wait."""

    def __init__(self, account: Account, limit: RateLimit, said: Ask, mine: Holder) -> None:
        self.account = account
        self.limit = limit
        self.said = said
        self.running = said.running
        self.levels = dict(account.levels)
        """What would be left if everyone before had taken theirs."""
        self.capacities = {kind: _capacity(account, limit, kind) for kind in account.rates}
        self.free = self._free_calls()
        self.call_s = account.usual_s / account.concurrent if account.concurrent else 0.0
        """Every so many seconds one of the calls under way ends."""
        self.closed_s = max(account.closed_until - account.at, 0.0)
        self.answer = Answer(granted=[], postponed={}, closed_s=self.closed_s)
        self.kept: list[Wish] = []
        self.blocked = self.closed_s > 0
        self.was = mine

    def _free_calls(self) -> float:
        if self.account.concurrent is None:
            return float("inf")
        return self.account.concurrent - self.account.running() - self.running

    def play(self, random: Callable[[], float]) -> Answer:
        lines = self._lines()
        tags = {tenant: max(self.account.served.get(tenant, 0.0), self.account.virtual) for tenant in lines}
        left = len(self.said.wishes)
        while left:
            tenant = min(lines, key=lambda name: (tags[name], name))
            wish, needs, holder = lines[tenant].next()
            if not lines[tenant]:
                del lines[tenant]
            wait_s = self._wait_s(needs)
            self._claim(needs)
            if wish is not None:
                left -= 1
                self._decide(wish, wait_s, tags[tenant], random)
            elif wait_s == 0.0 and holder is not None and holder.wakes_at > self.account.at + _SOON_S:
                self.answer.ring = True
            tags[tenant] += self._cost_s(needs) / self.limit.weights.get(tenant, 1.0)
        if not self.said.wishes:
            self._ring_for_others()
        self._sign()
        return self.answer

    def _lines(self) -> dict[str, _Line]:
        lines: dict[str, _Line] = {}
        for wish in self.said.wishes:
            lines.setdefault(wish.tenant, _Line()).mine.append(wish)
        for holder in self.account.holders.values():
            if holder.wakes_at + GRACE_S > self.account.at:
                for tenant, demand in holder.waiting.items():
                    others = [(demand.urgency, since, demand, holder) for since in demand.moments(MOST_WISHES)]
                    lines.setdefault(tenant, _Line()).others.extend(others)
        for line in lines.values():
            line.settle()
        return lines

    def _wait_s(self, needs: Mapping[str, float]) -> float | None:
        """In how many seconds such a call could be sent, after all that come before it; None: who knows."""
        wait_s = self.closed_s
        for kind, rate in self.account.rates.items():
            short = min(needs[kind], self.capacities[kind]) - self.levels[kind]
            if short > _ALMOST * self.capacities[kind]:
                wait_s = max(wait_s, short / rate * 60.0)
        if self.free >= 1:
            return wait_s
        if not self.account.usual_s:
            return None if wait_s == 0.0 else wait_s
        return max(wait_s, (1 - self.free) * self.call_s)

    def _claim(self, needs: Mapping[str, float]) -> None:
        for kind in self.levels:
            self.levels[kind] -= needs[kind]
        self.free -= 1

    def _decide(self, wish: Wish, wait_s: float | None, tag: float, random: Callable[[], float]) -> None:
        if wait_s == 0.0 and not self.blocked:
            self._grant(wish, tag)
            return
        self.blocked = True  # whoever is behind waits too, even if it needs less: else a large call would wait for ever
        if wait_s is not None and wait_s > wish.patience_s:
            cost_s = self._cost_s(wish.needs)
            self.answer.postponed[wish.id] = book(self.account, cost_s, wait_s, self.account.at, random)
            return
        self.kept.append(wish)
        if self.answer.wake_in_s is None:
            sleep_s = _FOR_A_FREE_CALL_S if wait_s is None or self.free < 1 else min(wait_s, _LONGEST_SLEEP_S)
            self.answer.wake_in_s = max(sleep_s, _SHORTEST_SLEEP_S)

    def _grant(self, wish: Wish, tag: float) -> None:
        account = self.account
        self.answer.granted.append(wish.id)
        self.running += 1
        account.granted_calls += 1
        for kind in KINDS:
            account.meter(kind).add(wish.needs[kind], account.at)
            if kind in account.levels:
                account.levels[kind] -= wish.needs[kind]
        begin = max(account.served.get(wish.tenant, 0.0), account.virtual)
        account.served[wish.tenant] = begin + self._cost_s(wish.needs) / self.limit.weights.get(wish.tenant, 1.0)
        account.virtual = max(account.virtual, min(begin, tag))

    def _cost_s(self, needs: Mapping[str, float]) -> float:
        """How long the whole limit is busy with such a call."""
        costs = [needs[kind] / rate * 60.0 for kind, rate in self.account.rates.items()]
        return max([*costs, self.call_s]) or 1.0

    def _ring_for_others(self) -> None:
        """We want nothing, but may have given something back."""
        for holder in self.account.holders.values():
            for demand in holder.waiting.values():
                if holder.wakes_at > self.account.at + _SOON_S and self._wait_s(demand.needs) == 0.0:
                    self.answer.ring = True

    def _sign(self) -> None:
        """Leave word of what we hold and what we wait for."""
        account, now = self.account, self.account.at
        waiting: dict[str, Demand] = {}
        for wish in self.kept:
            found = waiting.get(wish.tenant)
            waiting[wish.tenant] = _added(found, wish)
        wakes_at = now + self.answer.wake_in_s if self.answer.wake_in_s is not None else 0.0
        expires_at = now + HOLDER_TTL_S if self.running and account.concurrent is not None else 0.0
        running = self.running if account.concurrent is not None else 0
        if waiting or running:
            account.holders[self.said.worker] = Holder(running, waiting, wakes_at, expires_at)


def _added(demand: Demand | None, wish: Wish) -> Demand:
    if demand is None:
        return Demand(1, wish.urgency, wish.since, wish.since, dict(wish.needs))
    calls = demand.calls + 1
    needs = {kind: amount + (wish.needs[kind] - amount) / calls for kind, amount in demand.needs.items()}
    first = min((demand.urgency, demand.since), (wish.urgency, wish.since))
    return Demand(calls, *first, max(demand.latest, wish.since, first[1]), needs)


def _prune_tenants(account: Account) -> None:
    """Whoever is not ahead of the clock of fairness needs no entry."""
    ahead = {tenant: tag for tenant, tag in account.served.items() if tag > account.virtual}
    if len(ahead) > _MOST_TENANTS:
        ahead = dict(sorted(ahead.items(), key=lambda item: item[1])[-_MOST_TENANTS:])
    account.served = ahead
