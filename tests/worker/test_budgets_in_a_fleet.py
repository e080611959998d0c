"""One budget, several worker processes, one of them killed: the limit holds."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from queue_backends import Backend, CallOutcome
from tests.e2e.e2e_programs import workers
from worker.budgets.report import BudgetUse, budget_uses
from worker.budgets.rules import read_rules
from worker.client import connect
from worker.ledger.reading import usage_records

LIMIT_S = 60
CALL = 120
BUDGET = 40 * CALL
RULES = {"all": {"scope": "fleet", "tokens": BUDGET}}

pytestmark = pytest.mark.timeout(120)


def _settings() -> dict[str, Any]:
    turn = {"text": "an answer", "delay_s": 0.05, "usage": {"input_tokens": 20, "output_tokens": 100}}
    script = {"scenarios": [{"turns": [turn]}]}
    agent = {"model": "scripted", "provider": "scripted", "max_tokens": CALL, "options": {"script": script}}
    return {"agent": agent, "budgets": RULES, "backend": {"lease_s": 2}, "concurrency": 20}


async def _use(backend: Backend) -> BudgetUse | None:
    uses = await budget_uses(backend.state, read_rules(RULES))
    return uses[0] if uses else None


async def _used_up_to(backend: Backend, tokens: int, *, with_held: bool = False) -> BudgetUse:
    async with asyncio.timeout(LIMIT_S):
        while True:
            use = await _use(backend)
            if use is not None and use.tokens_used + (use.tokens_held if with_held else 0) >= tokens:
                return use
            await asyncio.sleep(0.02)


async def test_the_limit_holds_over_processes_of_which_one_is_killed(queue_url: str, tmp_path: Path) -> None:
    """A hundred tasks on two workers, each call uses no more than is reserved for it; one worker is killed with calls
    under way. Nobody knows what these cost, so what was reserved for them stays reserved: the other worker spends the
    rest of the limit and not a call more, and what the account says was spent is in the ledger."""
    async with connect(queue_url) as fleet:
        await fleet.submit_many([f"task {number}" for number in range(100)])
        with workers(2, tmp_path, queue_url, _settings()) as (one, _):
            await _used_up_to(fleet.backend, 5 * CALL)
            one.signal(signal.SIGKILL)
            use = await _used_up_to(fleet.backend, BUDGET - CALL + 1, with_held=True)
            for _ in range(20):  # nothing moves any more
                use = await _use(fleet.backend) or use
                assert use.tokens_used + use.tokens_held <= BUDGET + CALL
                await asyncio.sleep(0.02)
        records = [record async for record in usage_records(fleet.backend.state)]
    told = sum(record.usage.total_tokens for record in records if record.outcome is CallOutcome.COMPLETED)
    assert told <= BUDGET
    assert told <= use.tokens_used + use.tokens_held
    assert use.tokens_used <= told + 20 * CALL  # calls that had ended, whose record had not been written
