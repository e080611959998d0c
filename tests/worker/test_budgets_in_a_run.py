"""A worker keeps budgets: what a run spends counts, what it may not spend ends it for good, changes reach it live."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from queue_backends import Backend, TaskResult
from tests.worker.conftest import WorkerFactory
from worker.budgets.gate import BudgetGate
from worker.budgets.live import rules_in_force
from worker.budgets.report import budget_uses
from worker.budgets.rules import read_rules
from worker.client import Fleet
from worker.ledger.reading import usage_records
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


TWO_TURNS = {
    "scenarios": [
        {
            "turns": [
                {"tool_calls": [{"name": "look"}], "usage": {"input_tokens": 40, "output_tokens": 20}},
                {"text": "seen", "usage": {"input_tokens": 5, "output_tokens": 5}},
            ]
        }
    ]
}
TOOLS = """
from pathlib import Path
from worker import tool

@tool
def look() -> str:
    with open(Path(__file__).with_name("looks"), "a") as looks:
        looks.write("x")
    return "a view"
"""


async def test_a_run_that_reaches_a_budget_goes_on_from_there_when_it_was_raised(
    fleet_of: WorkerFactory, backend: Backend, tmp_path: Path
) -> None:
    """The turn before is paid for, told and kept: after `shoal dead requeue` only the one that was refused is made."""
    (tmp_path / "tools.py").write_text(TOOLS)
    rules = {"all": {"scope": "fleet", "tokens": 50}}
    async with fleet_of(script=TWO_TURNS, budgets=rules, python_tools=[str(tmp_path / "tools.py")]) as (fleet, _):
        refused = await _run(fleet, "acme")
        assert refused.error.startswith('permanent failure: budget "all" of the fleet is used up: 60 of 50 tokens')
        assert refused.usage is not None
        assert refused.usage.total_tokens == 60
        await LiveSettings(backend.state).set("budgets.all", '{"scope": "fleet", "tokens": 5000}')
        await _until_in_force(fleet)
        looks = (tmp_path / "looks").read_text()
        [letter] = await backend.queue.dead_letters()
        await backend.queue.requeue([letter.id])
        await backend.queue.wait(refused.task_id, WITHIN_S)
        [result] = await backend.queue.results([refused.task_id])
    assert result is not None
    assert (result.output, result.usage and result.usage.total_tokens) == ("seen", 70)
    assert (tmp_path / "looks").read_text() == looks
    records = [record async for record in usage_records(backend.state) if record.task_id == refused.task_id]
    assert [record.usage.total_tokens for record in records] == [60, 10]


async def _until_in_force(fleet: Fleet) -> None:
    """Other tasks show that the worker has heard of a change."""
    async with asyncio.timeout(WITHIN_S):
        while not (await _run(fleet, "")).ok:
            await asyncio.sleep(0.05)


async def test_a_run_that_is_cancelled_while_a_gate_is_left_is_settled_with_the_others(
    fleet_of: WorkerFactory, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a call has used counts in every budget, though the run ends while one of them is being told."""
    is_leaving = asyncio.Event()
    real = BudgetGate.leave

    async def hangs(gate: BudgetGate, *arguments: Any) -> None:
        await real(gate, *arguments)
        is_leaving.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(BudgetGate, "leave", hangs)
    daily = {"namespace": "ns", "agent_name": "writer", "daily_token_limit": 1000}
    async with fleet_of(script=SCRIPT, budgets=RULES, **daily) as (fleet, _):
        handle = await fleet.submit("x", tenant="acme")
        async with asyncio.timeout(WITHIN_S):
            await is_leaving.wait()
            await handle.cancel()
            await fleet.backend.queue.wait(handle.id, WITHIN_S)
    assert await backend.state.window_total("swarm:budget:ns:writer:usage", window_s=86_400) == 60
    [use] = await budget_uses(backend.state, read_rules(RULES))
    assert (use.tokens_used, use.tokens_held) == (60, 0)
