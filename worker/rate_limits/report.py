"""How much of each limit is used, for the command line and for pages: what the fleet's shared records say."""

from __future__ import annotations

import time

import msgspec
import structlog
from msgspec import Struct

from queue_backends import StateStore
from worker.rate_limits.account import Account
from worker.rate_limits.gate import PREFIX
from worker.rate_limits.rules import KINDS
from worker.shared_record import stored_value

log = structlog.get_logger(__name__)
_decoder = msgspec.json.Decoder(Account)


class KindUse(Struct, frozen=True, kw_only=True):
    """One kind of limit of an account."""

    kind: str
    """`requests`, `tokens`, `input_tokens` or `output_tokens`, each per minute, or `concurrent`."""
    limit: float
    """In force: what is set, or what was learned from the vendor."""
    used: float
    """In the last minute; of `concurrent`, now."""


class AccountUse(Struct, frozen=True, kw_only=True):
    """One limited account."""

    limit: str
    """The limit's name."""
    account: str
    """Whose: a key's name, say; empty if the limit has one account for all calls."""
    uses: tuple[KindUse, ...]
    waiting: int
    """Model calls that wait for room in a worker; those of postponed tasks do not."""
    granted: int
    """Calls that were let through, in all."""
    refused: int
    """Calls that the provider refused, in all."""
    pace: float
    """Share of the limits that is used at present: less than 1 after the provider has refused calls."""
    closed_s: float
    """For so long the provider wants no calls."""


async def limit_uses(state: StateStore, *, now: float | None = None) -> list[AccountUse]:
    """All accounts that were used in the last day, sorted. One that cannot be read is left out and named in the log.

    Raises `BackendUnavailable`.
    """
    at = time.time() if now is None else now
    found = []
    async for key, stored in state.scan(PREFIX):
        try:
            account = _decoder.decode(stored_value(stored))
        except msgspec.MsgspecError as error:
            log.warning("a rate limit's record cannot be read and is left out", key=key, error=str(error))
            continue
        name, _, whose = key.removeprefix(PREFIX).partition("/")
        found.append(_use(name, whose, account, max(at, account.at)))
    return sorted(found, key=lambda use: (use.limit, use.account))


def _use(name: str, whose: str, account: Account, at: float) -> AccountUse:
    uses = [
        KindUse(kind=kind, limit=account.rates[kind], used=account.meter(kind).lately(at))
        for kind in KINDS
        if kind in account.rates
    ]
    account.at = at
    if account.concurrent is not None:
        uses.append(KindUse(kind="concurrent", limit=account.concurrent, used=account.running()))
    return AccountUse(
        limit=name,
        account=whose,
        uses=tuple(uses),
        waiting=account.waiting(),
        granted=account.granted_calls,
        refused=account.refused_calls,
        pace=account.pace,
        closed_s=max(account.closed_until - at, 0.0),
    )
