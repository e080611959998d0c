"""Tells an account that was lost from one that is new.

Each account but those of tasks has a mark beside it, `budget-mark:<its key>`, which says when the account began. It is
made first, and lives no longer than the account would: so a mark whose account does not appear means that it was lost.
Tasks need none: what a task has spent stands in its journal.
"""

from __future__ import annotations

import asyncio
import math
import time

from queue_backends import StateStore
from worker.budgets import recounting
from worker.budgets.charge import OpenAccount
from worker.budgets.rules import Scope

PREFIX = "budget-mark:"
BIRTH_S = 1.0
"""Who has just made a mark opens its account within so long: in a round trip, if nothing is amiss."""
_LOOK_S = 0.01


async def began_at(state: StateStore, account: OpenAccount, now: float) -> float | None:
    """When an account began that is not there. None: it is new, and has its mark from us, just now. Raises
    `BackendUnavailable`."""
    key = PREFIX + account.key
    is_ours = await state.compare_and_set(key, None, _text(now), ttl_s=account.ttl_s)
    if account.held.opened_at:  # we have seen it, whatever the mark says
        return account.held.opened_at
    if is_ours:
        return None
    known = await state.get(key)
    return now if known is None else float(known)


async def appears(account: OpenAccount) -> bool:
    """Whether an account that has a mark is only being opened at this moment, by somebody else: it appears then."""
    if account.held.opened_at:
        return False
    give_up_at = time.monotonic() + BIRTH_S
    while recounting.is_missing(await account.record.read()):
        if time.monotonic() >= give_up_at:
            return False
        await asyncio.sleep(_LOOK_S)
    return True


async def mark(state: StateStore, account: OpenAccount, opened_at: float) -> None:
    """Say that an account exists, and since when. Raises `BackendUnavailable`."""
    if account.rule.scope is not Scope.TASK:
        await state.set(PREFIX + account.key, _text(opened_at), ttl_s=account.ttl_s)


def is_old(account: OpenAccount, marked_at: float, now: float) -> bool:
    """Whether the mark is to be renewed: it has lived half its life, or nobody has made one."""
    return account.rule.scope is not Scope.TASK and (not marked_at or now - marked_at > (account.ttl_s or math.inf) / 2)


def _text(at: float) -> bytes:
    return str(at).encode()
