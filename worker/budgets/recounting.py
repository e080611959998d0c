"""The changes of an account that is added up again from the usage log.

Each usage record says which accounts its call was charged to, and when it ended. At a moment `since` the account is cut
in two: calls that ended before it count as the log has them, all others as they are settled. Both sides go by the same
figures of the same record, so whenever the log is read, and however often, no call counts twice and none is left out
that the log has. What was spent right before the cut may get into the log a little later: so it is read a little later,
and once more some minutes after that.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from worker.budgets.account import Account, Amount, together

LOG_LAG_S = 5.0
"""So long after a call has ended its record is in the log, where nothing is amiss."""
LOOK_AGAIN_S = 120.0
"""After so long the log is read once more: for records that were late."""
_MOST_AHEAD_S = 600.0
"""No clock is believed that is further ahead."""
_CLAIM_S = 60.0
"""Who says that he reads the log, and has not said what he found after so long, has died."""


def is_missing(account: Account) -> bool:
    """Whether nothing is stored: every call leaves something in its account, and so does opening it."""
    return not (account.opened_at or account.spent or account.holds)


def opened(account: Account, now: float) -> Account:
    """A new account."""
    return replace(account, opened_at=now, marked_at=now)


def lost(account: Account, opened_at: float, now: float, *, pause_s: float) -> Account:
    """There was an account: no call goes until it is added up, which is when all workers have said again what they
    hold. Half of the pause is for workers whose clocks are ahead: what they had settled counts as the log has it."""
    since = _next_second(now + pause_s / 2)
    return replace(
        account,
        opened_at=opened_at or now,
        marked_at=now,
        since=since,
        recount_at=since + pause_s / 2,
        is_lost=True,
    )


def doubted(account: Account, now: float, *, lag_s: float = LOG_LAG_S) -> Account:
    """Somebody wants it added up again, and does so `lag_s` later. Until that is done it goes on as it was."""
    settled_before = min(account.last_end + 1, _next_second(now + _MOST_AHEAD_S))
    return replace(
        account,
        spent={},
        earlier=together(account.earlier, account.spent),
        since=max(_next_second(now), settled_before),
        recount_at=_next_second(now) + lag_s + _CLAIM_S,
    )


def late(account: Account, spent: Mapping[int, Amount], now: float) -> Account:
    """A call ended before the cut and is settled now. If the account was added up for good, the log is read again."""
    recount_at = account.recount_at or now + LOOK_AGAIN_S
    return replace(account, earlier=together(account.earlier, spent), recount_at=recount_at)


def is_due(account: Account, now: float) -> bool:
    """Whether somebody should read the log for it."""
    return 0.0 < account.recount_at <= now


def claimed(account: Account, now: float) -> Account:
    """Somebody reads the log for it. The same object if somebody does so already."""
    return replace(account, recount_at=now + _CLAIM_S) if is_due(account, now) else account


def recounted(account: Account, since: int, found: Mapping[int, Amount], again_at: float) -> Account:
    """What the log has of calls that ended before `since`. The same object if it was cut elsewhere meanwhile."""
    if account.since != since:
        return account
    return replace(account, earlier=dict(found), recount_at=again_at, is_lost=False)


def provisional(account: Account, found: Mapping[int, Amount]) -> Account:
    """What the log has so far; it is still to be added up."""
    return replace(account, earlier=dict(found))


def _next_second(now: float) -> int:
    return int(now) + 1
