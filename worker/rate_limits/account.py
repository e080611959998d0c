"""What all workers know together of one limited account: the value of its shared record.

Moments are Unix seconds by the clock of the fleet, which is that of its fastest worker; amounts are requests or tokens.
"""

from __future__ import annotations

from msgspec import Struct

USED_OVER_S = 60.0
GRACE_S = 2.0
"""So much later than it said, a worker that waits may ask; then its turn is over."""
_NEVER = 0.0


class Meter(Struct, array_like=True):
    """What was used in the present minute and in the one before."""

    minute: int = 0
    now: float = 0.0
    before: float = 0.0

    def add(self, amount: float, at: float) -> None:
        """Use was made, or, if it is negative, was less than had been noted."""
        self._turn(at)
        self.now += amount

    def lately(self, at: float) -> float:
        """What was used in the last 60 seconds, as if the minute before had been even."""
        self._turn(at)
        share_of_before = 1 - at % USED_OVER_S / USED_OVER_S
        return max(self.now + self.before * share_of_before, 0.0)

    def _turn(self, at: float) -> None:
        minute = int(at // USED_OVER_S)
        if minute > self.minute:
            self.before = self.now if minute == self.minute + 1 else 0.0
            self.now, self.minute = 0.0, minute


class Demand(Struct, array_like=True):
    """Calls of one tenant that wait in one worker."""

    calls: int
    urgency: int
    """Of the most urgent; 0 comes first."""
    since: float
    """Since when the first of them has waited."""
    latest: float
    """Since when the last one has."""
    needs: dict[str, float]
    """Of one of them, on average."""

    def moments(self, most: int) -> list[float]:
        """Since when each of them has waited, as if they had come evenly; of `most` at most."""
        step_s = (self.latest - self.since) / max(self.calls - 1, 1)
        return [self.since + number * step_s for number in range(min(self.calls, most))]


class Holder(Struct, array_like=True):
    """One worker process that has calls under way, or waiting."""

    running: int = 0
    waiting: dict[str, Demand] = {}
    wakes_at: float = _NEVER
    """When it will ask for what it waits for, at the latest."""
    expires_at: float = _NEVER
    """It has died if nothing was heard of it until then: what it held is free."""


class Account(Struct, omit_defaults=True):
    """How much of the limits is left, who waits, and what was learned from the vendor."""

    at: float = _NEVER
    """Of the latest change."""
    levels: dict[str, float] = {}
    """What may be used at once, by kind; below zero after calls that needed more than was there."""
    rates: dict[str, float] = {}
    """Per minute, by kind, as in force."""
    concurrent: int | None = None
    holders: dict[str, Holder] = {}
    virtual: float = 0.0
    """The clock of fairness: how much the tenant served last had been given, in seconds of the whole limit."""
    served: dict[str, float] = {}
    """Tenants that have been given more than that."""
    learned: dict[str, float] = {}
    """What the vendor tells of its limits, per minute."""
    guessed: float | None = None
    """Requests per minute at which the vendor refused calls, where nobody knows its limit."""
    pace: float = 1.0
    """Share of the rates that is used: lowered by each refusal of the vendor, and slowly raised again."""
    closed_at: float = _NEVER
    closed_until: float = _NEVER
    refusals: int = 0
    """In a row."""
    refused_calls: int = 0
    """In all, as long as the record exists."""
    granted_calls: int = 0
    answers: int = 0
    """Calls that were answered, up to the first that was refused or told of limits, and no more than matter."""
    born_at: float = _NEVER
    usual_output: float = 0.0
    """Output tokens of a call."""
    usual_s: float = 0.0
    """How long a call takes."""
    used: dict[str, Meter] = {}
    bookings: dict[int, float] = {}
    """Number of a span of time (`postponing.SPAN_S`) -> work that will come back in it, in seconds of the limit."""
    booked_until: float = _NEVER
    """Work that was postponed beyond these spans comes back until then."""

    def copied(self) -> Account:
        """A copy that can be changed without changing this one. What is in the values of its parts is replaced, never
        changed, but for the meters."""
        return Account(
            at=self.at,
            levels=dict(self.levels),
            rates=dict(self.rates),
            concurrent=self.concurrent,
            holders=dict(self.holders),
            virtual=self.virtual,
            served=dict(self.served),
            learned=dict(self.learned),
            guessed=self.guessed,
            pace=self.pace,
            closed_at=self.closed_at,
            closed_until=self.closed_until,
            refusals=self.refusals,
            refused_calls=self.refused_calls,
            granted_calls=self.granted_calls,
            answers=self.answers,
            born_at=self.born_at,
            usual_output=self.usual_output,
            usual_s=self.usual_s,
            used={kind: Meter(meter.minute, meter.now, meter.before) for kind, meter in self.used.items()},
            bookings=dict(self.bookings),
            booked_until=self.booked_until,
        )

    def meter(self, kind: str) -> Meter:
        """The meter of one kind."""
        return self.used.setdefault(kind, Meter())

    def running(self) -> int:
        """Calls under way in the fleet, where that is limited."""
        return sum(holder.running for holder in self.holders.values() if holder.expires_at > self.at)

    def waiting(self) -> int:
        """Calls that wait in the fleet."""
        awake = [holder for holder in self.holders.values() if holder.wakes_at + GRACE_S > self.at]
        return sum(demand.calls for holder in awake for demand in holder.waiting.values())


def shares(account: Account) -> dict[str, float]:
    """Kind -> the part of its limit that was used in the last minute; of `concurrent`, the part that is used now."""
    found = {
        kind: account.used[kind].lately(account.at) / rate
        for kind, rate in account.rates.items()
        if rate > 0 and kind in account.used
    }
    if account.concurrent:
        found["concurrent"] = account.running() / account.concurrent
    return found
