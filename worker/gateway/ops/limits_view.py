"""Rate limits for a page: each limit with what its accounts have used in the last minute."""

from __future__ import annotations

from msgspec import Struct

from queue_backends import StateStore
from worker.live_settings import LiveSettings
from worker.rate_limits.live import limits_in_force
from worker.rate_limits.report import AccountUse, limit_uses
from worker.rate_limits.rules import Limits, RateLimit

MOST_ACCOUNTS = 50


class LimitView(Struct, frozen=True, kw_only=True):
    """One limit and how much of it is used."""

    rule: RateLimit
    accounts: list[AccountUse]
    """Those that were used in the last day, at most `MOST_ACCOUNTS`."""
    accounts_in_all: int


class LimitsView(Struct, frozen=True, kw_only=True):
    """All limits in force, by name."""

    limits: list[LimitView]

    def for_tenant(self, tenant: str) -> LimitsView:
        """What a caller of this tenant sees: its own accounts of limits that have one for each tenant. An empty name
        sees all."""
        if not tenant:
            return self
        own = []
        for view in self.limits:
            if view.rule.per == ("tenant",):
                accounts = [use for use in view.accounts if use.account == tenant]
                own.append(LimitView(rule=view.rule, accounts=accounts, accounts_in_all=len(accounts)))
        return LimitsView(limits=own)


async def limits_view(state: StateStore, declared: Limits, live: LiveSettings) -> LimitsView:
    """Read all accounts. Raises `BackendUnavailable`."""
    rules = limits_in_force(declared, live)
    uses: dict[str, list[AccountUse]] = {name: [] for name in rules}
    for use in await limit_uses(state):
        if use.limit in uses:
            uses[use.limit].append(use)
    return LimitsView(
        limits=[
            LimitView(rule=rules[name], accounts=uses[name][:MOST_ACCOUNTS], accounts_in_all=len(uses[name]))
            for name in sorted(rules)
        ]
    )
