"""Makes the accounts of budgets again from the usage log, for an operator who does not trust them or has lost some."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping

from msgspec import Struct

from queue_backends import StateStore
from worker.budgets import marks, recounting
from worker.budgets.account import Account, current, period_began_at, spent_of
from worker.budgets.charge import PREFIX, OpenAccount, account_key
from worker.budgets.parts import in_parts
from worker.budgets.recounts import Sums, sums_of, wanted
from worker.budgets.rules import BudgetRule, Rules, Scope
from worker.ledger.reading import usage_records

WORKERS_PAUSE_S = 20.0
"""An account that was missing opens again after so long, when all workers have said what they hold there."""


class Rebuilt(Struct, frozen=True, kw_only=True):
    """What became of one account."""

    budget: str
    scope: str
    account: str
    period: str
    tokens_before: int
    tokens_after: int
    usd_before: float
    usd_after: float
    was_missing: bool = False
    is_kept: bool = False
    """Not all of it is surely in the log, which would have it too low, so it was left as it is."""


async def rebuild(
    state: StateStore,
    rules: Rules,
    *,
    keep_s: float,
    by_force: bool = False,
    lag_s: float = recounting.LOG_LAG_S,
    clock: Callable[[], float] = time.time,
) -> list[Rebuilt]:
    """Add up all accounts of these budgets from the usage log, whose records are kept for `keep_s`; by budget and
    account. Those that are missing are made again, but not those of tasks: theirs make themselves. Work goes on
    meanwhile. It takes `lag_s`, up to a second, and what reading the log takes. Raises `BackendUnavailable`."""
    existing = await _existing(state, rules)

    async def doubt(account: OpenAccount) -> Rebuilt | int:
        return await _doubt(account, clock(), lag_s, keep_s=math.inf if by_force else keep_s)

    answers = await in_parts(existing.values(), doubt)
    found = [answer for answer in answers if isinstance(answer, Rebuilt)]
    doubted = [
        (account, answer)
        for account, answer in zip(existing.values(), answers, strict=True)
        if not isinstance(answer, Rebuilt)
    ]
    if doubted:
        await asyncio.sleep(
            1.0 - clock() % 1.0 + lag_s
        )  # the records of calls that ended right before are on their way
    missing = await _missing(state, rules, existing, clock())
    sums = await sums_of(usage_records(state), wanted([*doubted, *missing]))
    found += await in_parts(doubted, lambda cut: _written(*cut, sums, clock()))
    found += await in_parts(missing, lambda cut: _made_anew(state, cut[0], sums, clock()))
    return sorted(found, key=lambda each: (each.budget, each.account))


async def _existing(state: StateStore, rules: Rules) -> dict[str, OpenAccount]:
    by_prefix = {account_key(rule, ""): rule for rule in rules.values()}
    found = {}
    async for key, _ in state.scan(PREFIX):
        if (account := _account_at(state, key, by_prefix)) is not None:
            found[key] = account
    return found


async def _missing(
    state: StateStore, rules: Rules, existing: Mapping[str, OpenAccount], now: float
) -> list[tuple[OpenAccount, int]]:
    """Accounts that calls were charged to of which something counts today, and that are not there."""
    by_prefix = {account_key(rule, ""): rule for rule in rules.values() if rule.scope is not Scope.TASK}
    found: dict[str, tuple[OpenAccount, int]] = {}
    async for record in usage_records(state):
        for key in record.charged_to:
            if key in existing or key in found or (account := _account_at(state, key, by_prefix)) is None:
                continue
            if record.started_at >= period_began_at(account.rule.period, now):
                found[key] = account, int(now) + 1
    return list(found.values())


def _account_at(state: StateStore, key: str, by_prefix: Mapping[str, BudgetRule]) -> OpenAccount | None:
    prefix = ":".join([*key.split(":", 4)[:4], ""])
    rule = by_prefix.get(prefix)
    return None if rule is None else OpenAccount(state, rule, key.removeprefix(prefix))


def _is_in_log(stored: Account, rule: BudgetRule, now: float, keep_s: float) -> bool:
    """Whether the log has all that counts: each call that was charged to the account, under its name."""
    counts_from = period_began_at(rule.period, now)
    if counts_from < stored.opened_at:
        return not stored.is_older and stored.opened_at >= now - keep_s
    return counts_from >= now - keep_s


async def _doubt(account: OpenAccount, now: float, lag_s: float, *, keep_s: float) -> Rebuilt | int:
    """Where the account is cut; or what it is, if it is kept so."""

    def change(stored: Account) -> tuple[Account, Rebuilt | int]:
        if keep_s < math.inf and not _is_in_log(stored, account.rule, now, keep_s):
            return stored, _told(account, stored, stored, now, is_kept=True)
        doubted = recounting.doubted(stored, now, lag_s=lag_s)
        return doubted, doubted.since

    return await account.record.update(change)


async def _written(account: OpenAccount, since: int, sums: Sums, now: float) -> Rebuilt:
    def change(stored: Account) -> tuple[Account, Rebuilt]:
        after = recounting.recounted(stored, since, sums[account.key], now + recounting.LOOK_AGAIN_S)
        after = current(after, account.rule, now)
        return after, _told(account, stored, after, now)

    return await account.record.update(change)


async def _made_anew(state: StateStore, account: OpenAccount, sums: Sums, now: float) -> Rebuilt:
    opened_at = 1.0  # nobody knows when it began: long ago

    def change(stored: Account) -> tuple[Account, Rebuilt]:
        if not recounting.is_missing(stored):  # somebody has been faster, and sees to it
            return stored, _told(account, stored, stored, now)
        after = recounting.lost(stored, opened_at, now, pause_s=WORKERS_PAUSE_S)
        after = recounting.provisional(after, sums[account.key])
        return after, _told(account, stored, after, now, was_missing=True)

    await marks.mark(state, account, opened_at)
    return await account.record.update(change)


def _told(
    account: OpenAccount,
    before: Account,
    after: Account,
    now: float,
    *,
    was_missing: bool = False,
    is_kept: bool = False,
) -> Rebuilt:
    rule = account.rule
    one, other = spent_of(before, rule, now), spent_of(after, rule, now)
    return Rebuilt(
        budget=rule.name,
        scope=rule.scope.value,
        account=account.name,
        period=rule.period.value,
        tokens_before=one.tokens,
        tokens_after=other.tokens,
        usd_before=one.microusd / 1e6,
        usd_after=other.microusd / 1e6,
        was_missing=was_missing,
        is_kept=is_kept,
    )
