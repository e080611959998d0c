"""One budget, several worker processes, one of them killed: the limit holds, and nothing stays reserved."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from queue_backends import Backend, CallOutcome
from tests.e2e.e2e_programs import workers
from worker.budgets.rebuilding import rebuild
from worker.budgets.recounts import spent_by
from worker.budgets.report import BudgetUse, budget_uses
from worker.budgets.rules import read_rules
from worker.client import connect
from worker.ledger.reading import usage_records
from worker.usage import KEEP_S

LIMIT_S = 60
CALL = 120
BUDGET = 40 * CALL
RULES = {"all": {"scope": "fleet", "tokens": BUDGET}}

pytestmark = pytest.mark.timeout(120)


def _settings(delay_s: float = 0.05) -> dict[str, Any]:
    turn = {"text": "an answer", "delay_s": delay_s, "usage": {"input_tokens": 20, "output_tokens": 100}}
    script = {"scenarios": [{"turns": [turn]}]}
    agent = {"model": "scripted", "provider": "scripted", "max_tokens": CALL, "options": {"script": script}}
    return {"agent": agent, "budgets": RULES, "backend": {"lease_s": 2}, "concurrency": 20}


async def _used(backend: Backend, is_so: Callable[[BudgetUse], bool]) -> BudgetUse:
    """The account, once it is so."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            uses = await budget_uses(backend.state, read_rules(RULES))
            if uses and is_so(uses[0]):
                return uses[0]
            await asyncio.sleep(0.02)


async def _told(backend: Backend) -> int:
    return sum([spent_by(record).tokens async for record in usage_records(backend.state)])


async def test_what_a_killed_worker_held_is_free_again_by_itself(queue_url: str, tmp_path: Path) -> None:
    """Killed in the middle of its calls, with no other worker there: when its leases have run out the counter is back.
    Who goes on with the tasks writes down that calls were lost; their cost is not known, and not in the budget."""
    async with connect(queue_url) as fleet:
        handles = await fleet.submit_many(["one", "two", "three"])
        with workers(1, tmp_path, queue_url, _settings(delay_s=600)) as (dead,):
            await _used(fleet.backend, lambda use: use.tokens_held >= 3 * CALL)
            dead.signal(signal.SIGKILL)
            use = await _used(fleet.backend, lambda use: use.tokens_held == 0)
            assert use.tokens_used == 0
        with workers(1, tmp_path, queue_url, _settings()):
            for handle in handles:
                assert (await handle.result(LIMIT_S)).output == "an answer"
            use = await _used(fleet.backend, lambda use: use.tokens_held == 0 and use.tokens_used >= 3 * CALL)
        records = [record async for record in usage_records(fleet.backend.state)]
        outcomes = sorted(record.outcome for record in records)
        assert outcomes == [*[CallOutcome.COMPLETED] * 3, *[CallOutcome.LOST] * 3]
        assert [record.cost_usd for record in records if record.outcome is CallOutcome.LOST] == [None] * 3
        assert use.tokens_used == await _told(fleet.backend) == 3 * CALL


async def test_the_limit_holds_over_processes_of_which_one_is_killed(queue_url: str, tmp_path: Path) -> None:
    """A hundred tasks on two workers, each call uses no more than is reserved for it; one worker is killed with calls
    under way, and the account is deleted. The other spends the limit and not a call more; added up again, the account
    is what the records say."""
    async with connect(queue_url) as fleet:
        await fleet.submit_many([f"task {number}" for number in range(100)])
        with workers(2, tmp_path, queue_url, _settings()) as (one, _):
            await _used(fleet.backend, lambda use: use.tokens_used >= 5 * CALL)
            one.signal(signal.SIGKILL)
            await fleet.backend.state.delete("budget:all:fleet:ever:fleet")
            use = await _used(fleet.backend, lambda use: use.tokens_used >= BUDGET and not use.tokens_held)
            assert use.tokens_used <= BUDGET + CALL
        [rebuilt] = await rebuild(fleet.backend.state, read_rules(RULES), keep_s=KEEP_S, lag_s=0.0)
        assert rebuilt.tokens_after == await _told(fleet.backend) <= BUDGET + CALL
