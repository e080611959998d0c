"""A cancellation that meets something else in the same moment, or gets lost on its way, is honoured all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

import providers
from providers import ChatProvider, TextDelta, TurnEvent, TurnRequest
from queue_backends import RUN_CANCELLED, CancelOutcome
from tests.worker.conftest import WorkerFactory
from worker.client import Handle
from worker.ledger.reading import usage_records
from worker.worker import Worker

LIMIT_S = 20
SLOW = {"scenarios": [{"turns": [{"text": "never said", "delay_s": 2 * LIMIT_S}]}]}
BUDGETS = {"all": {"scope": "fleet", "tokens": 250}}
"""Room for two calls at a time of an agent that may answer with 100 tokens; others wait at the gate."""


async def _turns(number: int) -> None:
    """Let the event loop go round."""
    for _ in range(number):
        await asyncio.sleep(0)


async def _all_run(worker: Worker, number: int) -> None:
    async with asyncio.timeout(LIMIT_S):
        while worker.running < number:
            await asyncio.sleep(0.01)


async def _errors(handles: list[Handle]) -> set[str]:
    async with asyncio.timeout(LIMIT_S):
        return {(await handle.result()).error for handle in handles}


class _Distracted(ChatProvider):
    """A library of its own loses the first cancellation, as if the answer to an inner request had just come."""

    name = "distracted"
    begun: asyncio.Event
    told: int

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        yield TextDelta("one ")
        type(self).begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            type(self).told += 1
        await asyncio.sleep(2 * LIMIT_S)


@pytest.mark.parametrize("turns", range(0, 30, 3))
async def test_runs_that_wait_for_a_budget_while_others_give_it_back(
    fleet_of: WorkerFactory, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cancelled call gives its part of the budget back, which wakes those that wait: a cancellation that reaches
    one of them just as it wakes ends it, too. Nobody has to be told twice."""
    monkeypatch.setattr("worker.stubborn.HEED_WITHIN_S", 2 * LIMIT_S)
    settings: dict[str, Any] = {"agent.max_tokens": 100, "budgets": BUDGETS, "grace_s": 0.0}
    async with fleet_of(script=SLOW, **settings) as (fleet, worker):
        handles = [await fleet.submit("x") for _ in range(8)]
        await _all_run(worker, len(handles))
        for handle in handles:
            assert await handle.cancel() is CancelOutcome.REQUESTED
            await _turns(turns)
        assert await _errors(handles) == {RUN_CANCELLED}
        assert worker.running == 0


@pytest.mark.parametrize("way", ["cancel", "stop"])
async def test_a_run_that_has_lost_its_cancellation_is_told_again(
    fleet_of: WorkerFactory, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """It ends by itself then, with its call accounted for: nobody has to give it up, and the worker can leave."""
    monkeypatch.setattr("worker.stubborn.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("worker.stubborn.HEED_WITHIN_S", 0.0)
    providers.register("distracted", _Distracted)
    _Distracted.begun, _Distracted.told = asyncio.Event(), 0
    with capture_logs() as logs:
        async with fleet_of(**{"agent.provider": "distracted", "grace_s": 0.0}) as (fleet, worker):
            handle = await fleet.submit("x")
            async with asyncio.timeout(LIMIT_S):
                await _Distracted.begun.wait()
            if way == "cancel":
                await handle.cancel()
                assert await _errors([handle]) == {RUN_CANCELLED}
            else:
                worker.stop()
        calls = [record async for record in usage_records(fleet.backend.state)]
    assert _Distracted.told == 1
    assert [(call.task_id, call.outcome) for call in calls] == [(handle.id, "cancelled")]
    assert not [line for line in logs if "does not end" in line["event"]]
