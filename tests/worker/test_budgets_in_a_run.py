"""A worker keeps budgets: what a run spends counts, what it may not spend ends it for good, changes reach it live."""

from __future__ import annotations

import asyncio

from queue_backends import Backend, TaskResult
from tests.worker.conftest import WorkerFactory
from worker.budgets.live import rules_in_force
from worker.budgets.report import budget_uses
from worker.budgets.rules import read_rules
from worker.client import Fleet
from worker.live_settings import LiveSettings

WITHIN_S = 30.0
SCRIPT = {"scenarios": [{"turns": [{"text": "an answer", "usage": {"input_tokens": 40, "output_tokens": 20}}]}]}
RULES = {"acme": {"scope": "tenant", "tokens": 100}}


async def _run(fleet: Fleet, tenant: str) -> TaskResult:
    handle = await fleet.submit("x", tenant=tenant)
    await fleet.backend.queue.wait(handle.id, WITHIN_S)
    [result] = await fleet.backend.queue.results([handle.id])
    assert result is not None
    return result


async def test_a_task_over_budget_fails_once_and_for_good(fleet_of: WorkerFactory, backend: Backend) -> None:
    """Two calls of 60 tokens pass 100; the third task is refused without a model call, and is not tried again."""
    async with fleet_of(script=SCRIPT, budgets=RULES) as (fleet, _):
        for _ in range(2):
            assert (await _run(fleet, "acme")).ok
        refused = await _run(fleet, "acme")
        assert (await _run(fleet, "other")).ok
    assert refused.error.startswith('permanent failure: budget "acme" of tenant acme is used up: 120 of 100 tokens')
    [letter] = await backend.queue.dead_letters()
    assert letter.attempt == 1  # the first was the only one
    uses = {use.account: use for use in await budget_uses(backend.state, read_rules(RULES))}
    assert (uses["acme"].tokens_used, uses["acme"].tokens_held) == (120, 0)


async def test_a_budget_raised_live_lets_the_next_task_go(fleet_of: WorkerFactory, backend: Backend) -> None:
    """No restart: the worker that refused a moment ago runs the next task under the new limit."""
    async with fleet_of(script=SCRIPT, budgets={"acme": {"scope": "tenant", "tokens": 50}}) as (fleet, _):
        assert (await _run(fleet, "acme")).ok
        assert not (await _run(fleet, "acme")).ok
        await LiveSettings(backend.state).set("budgets.acme", '{"scope": "tenant", "tokens": 5000}')
        async with asyncio.timeout(WITHIN_S):
            while not (await _run(fleet, "acme")).ok:
                await asyncio.sleep(0.05)
    live = LiveSettings(backend.state)
    await live.load()
    assert rules_in_force({}, live)["acme"].tokens == 5000
