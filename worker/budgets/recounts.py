"""Adds up accounts from the usage log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

import structlog

from queue_backends import QueueError, StateStore, UsageRecord
from worker.budgets import recounting
from worker.budgets.account import Account, Amount, current, slot_of
from worker.budgets.charge import OpenAccount
from worker.budgets.rules import Period, Scope
from worker.call_gates import is_charged_as_expected
from worker.journal import ModelCall, read_journal
from worker.ledger.reading import usage_records

_RETRY_S = 1.0

_log = structlog.get_logger(__name__)

Sums = dict[str, dict[int, Amount]]
"""Key of an account -> slot of time -> what calls have spent there."""


def spent_by(record: UsageRecord) -> Amount:
    """What a call counts as in its budgets."""
    if is_charged_as_expected(record):
        return Amount(*(record.charged or (0, 0)))
    return Amount(record.usage.total_tokens, round((record.cost_usd or 0.0) * 1e6))


def ended_at(record: UsageRecord) -> float:
    """When a call ended (Unix seconds), as its worker has it."""
    return record.started_at + record.duration_ms / 1000


async def sums_of(records: AsyncIterator[UsageRecord], asked: Mapping[str, tuple[Period, int]]) -> Sums:
    """What calls have spent that ended before a moment, by the account's key: its period, and that moment (Unix
    seconds). Raises `BackendUnavailable`."""
    sums: Sums = {key: {} for key in asked}
    async for record in records:
        for key in record.charged_to:
            if key in asked and int(ended_at(record)) < asked[key][1]:
                slot = slot_of(asked[key][0], ended_at(record))
                sums[key][slot] = sums[key].get(slot, Amount()) + spent_by(record)
    return sums


class Recounts:
    """Adds up those accounts that are due, one reading of the log for all that are."""

    def __init__(self, state: StateStore, *, clock: Callable[[], float], on_done: Callable[[], None]) -> None:
        self._state = state
        self._clock = clock
        self._on_done = on_done
        self._due: dict[str, OpenAccount] = {}
        self._news = asyncio.Event()

    def ask(self, account: OpenAccount) -> None:
        """An account is due."""
        self._due[account.key] = account
        self._news.set()

    async def run(self) -> None:
        """Until cancelled. While the store is away it tries again: whoever waits for an account would ask anyway."""
        while True:
            await self._news.wait()
            self._news.clear()
            due, self._due = list(self._due.values()), {}
            try:
                await recount(self._state, due, clock=self._clock)
            except QueueError as error:
                _log.warning("budgets' accounts cannot be added up, trying again", error=str(error))
                await asyncio.sleep(_RETRY_S)
                for account in due:
                    self.ask(account)
            except Exception:  # noqa: BLE001 - such as an account that somebody has written by hand: others will be due
                _log.exception("budgets' accounts cannot be added up", accounts=[account.key for account in due][:20])
            self._on_done()


async def recount(state: StateStore, accounts: Iterable[OpenAccount], *, clock: Callable[[], float]) -> int:
    """Add up those accounts that are due and that nobody else is about; how many. Raises `BackendUnavailable`."""
    claimed = [found for account in accounts if (found := await _claim(account, clock())) is not None]
    tasks = [found for found in claimed if found[0].rule.scope is Scope.TASK]
    others = [found for found in claimed if found[0].rule.scope is not Scope.TASK]
    for account, since in tasks:  # each has a record of its own, which is short
        await _write(
            [(account, since)], await sums_of(task_records(state, account.name), wanted([(account, since)])), clock
        )
    if others:
        await _write(others, await sums_of(usage_records(state), wanted(others)), clock)
    return len(claimed)


async def task_records(state: StateStore, task_id: str) -> AsyncIterator[UsageRecord]:
    """The usage records of one task, out of its journal. Raises `BackendUnavailable`."""
    for moment in await read_journal(state, task_id):
        if isinstance(moment.entry, ModelCall):
            yield moment.entry.usage


def wanted(claimed: Iterable[tuple[OpenAccount, int]]) -> dict[str, tuple[Period, int]]:
    """Accounts and the moments at which they are cut, as `sums_of` takes them."""
    return {account.key: (account.rule.period, since) for account, since in claimed}


async def _claim(account: OpenAccount, now: float) -> tuple[OpenAccount, int] | None:
    def change(stored: Account) -> tuple[Account, int | None]:
        mine = recounting.claimed(stored, now)
        return mine, None if mine is stored else mine.since

    since = await account.record.update(change)
    return None if since is None else (account, since)


async def _write(claimed: Iterable[tuple[OpenAccount, int]], sums: Sums, clock: Callable[[], float]) -> None:
    for account, since in claimed:
        await _write_one(account, since, sums[account.key], clock())
        _log.info("a budget's account is added up from the usage log", budget=account.rule.name, account=account.name)


async def _write_one(account: OpenAccount, since: int, found: dict[int, Amount], now: float) -> None:
    again_at = 0.0 if now >= since + recounting.LOOK_AGAIN_S else now + recounting.LOOK_AGAIN_S

    def change(stored: Account) -> tuple[Account, None]:
        stored = recounting.recounted(stored, since, found, again_at)
        return current(stored, account.rule, now), None

    await account.record.update(change)
