"""Tells an account that was lost from one that is new.

Each account but those of tasks has a mark beside it, `budget-mark:<its key>`, which says when the account began. It is
made first, and lives no longer than the account would: so a mark without an account means that the account was lost.
Tasks need none: what a task has spent stands in its journal.
"""

from __future__ import annotations

import math

from queue_backends import StateStore
from worker.budgets.charge import OpenAccount
from worker.budgets.rules import Scope

PREFIX = "budget-mark:"
BIRTH_S = 5.0
"""A mark that is younger may stand before its account, which somebody is about to open."""


async def lost_since(state: StateStore, account: OpenAccount, now: float) -> float | None:
    """When an account began that is not there: it was lost. None: it is new, and is marked now. Raises
    `BackendUnavailable`."""
    known = await state.get(PREFIX + account.key)
    if known is None:
        await state.compare_and_set(PREFIX + account.key, None, _text(now), ttl_s=account.ttl_s)
    began_at = now if known is None else float(known)
    if account.held.opened_at:  # we have seen it, whatever the mark says
        return account.held.opened_at
    return None if now - began_at < BIRTH_S else began_at


async def mark(state: StateStore, account: OpenAccount, opened_at: float) -> None:
    """Say that an account exists, and since when. Raises `BackendUnavailable`."""
    if account.rule.scope is not Scope.TASK:
        await state.set(PREFIX + account.key, _text(opened_at), ttl_s=account.ttl_s)


def is_old(account: OpenAccount, marked_at: float, now: float) -> bool:
    """Whether the mark is to be renewed: it has lived half its life, or nobody has made one."""
    return account.rule.scope is not Scope.TASK and (not marked_at or now - marked_at > (account.ttl_s or math.inf) / 2)


def _text(at: float) -> bytes:
    return str(at).encode()
