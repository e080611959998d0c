"""Workers that die in the middle of a run that went from target to target."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path

import pytest

from providers.replay_server import Ending, ReplayServer
from providers.turn_routing import Switch
from queue_backends import CallOutcome, Delivery, Task, TokenUsage, UsageRecord
from tests.e2e.e2e_programs import workers
from tests.routing.targets import calls_of, ended, shown
from tests.routing.test_vendors import BUSY, answer_of, anthropic, openai, recorded
from worker.client import connect
from worker.journal import Entry, ModelCall, Switched, TakenOver
from worker.recall import recall

LIMIT_S = 60


@pytest.mark.timeout(120)
async def test_a_killed_worker_costs_no_turn_and_the_run_stays_where_it_went(
    queue_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 in the second turn of a run that had failed over in its first: whoever goes on asks the second target for
    that turn alone; the first target, and the first turn, are not asked for again; the call that was under way is in
    the books."""
    monkeypatch.setenv("KEY_A", "key-of-a")
    monkeypatch.setenv("KEY_B", "key-of-b")
    replies = [
        recorded("openai", "tool_call"),
        recorded("openai", "text", Ending.SILENCE, 6),
        recorded("openai", "text"),
    ]
    async with ReplayServer([BUSY]) as a, ReplayServer(replies) as b, connect(queue_url) as fleet:
        settings = {
            "routes": {"main": [anthropic(a), openai(b)]},
            "agent": {"route": "main"},
            "backend": {"lease_s": 4},  # lost while nobody has died, it would cost the turn that is waited for
        }
        handle = await fleet.submit("How is the weather in Lisbon?")
        with workers(1, tmp_path, queue_url, settings) as (doomed,):
            async with asyncio.timeout(LIMIT_S):
                async for chunk in handle:
                    if chunk.turn == 1:
                        break
            doomed.signal(signal.SIGKILL)
        with workers(1, tmp_path, queue_url, settings):
            result = await handle.result(LIMIT_S)
        _, chunks = await ended(handle)
        records = await calls_of(fleet.backend, handle.id)
    assert result.output == answer_of("openai", "text")
    assert shown(chunks).endswith(result.output)
    assert len(a.requests) == 1
    assert len(b.requests) == 3
    assert [chunk.is_final for chunk in chunks].count(True) == 1
    assert Counter((record.provider, record.outcome.value) for record in records) == {
        ("anthropic", "failed"): 1,
        ("openai", "completed"): 2,
        ("(route)", "lost"): 1,
    }


def called(attempt: int, outcome: CallOutcome, *, turn: int = 0) -> ModelCall:
    """A call that has ended."""
    record = UsageRecord(
        id=f"t:{turn}:{attempt}",
        task_id="t",
        provider="p",
        model="m",
        usage=TokenUsage(),
        outcome=outcome,
        started_at=0.0,
        duration_ms=1,
    )
    return ModelCall(turn=turn, attempt=attempt, usage=record, target="p/m")


def switched(attempt: int, *, beside: int | None = None, turn: int = 0) -> Switched:
    """A call that is about to be sent elsewhere, or beside another one."""
    switch = Switch(
        route="r", target=f"t{attempt}", provider="p", model=f"m{attempt}", before="x", reason="slow", beside=beside
    )
    return Switched(turn=turn, attempt=attempt, switch=switch)


@pytest.mark.parametrize(
    ("entries", "lost"),
    [
        ([], [0]),
        ([called(0, CallOutcome.FAILED)], [1]),
        ([called(0, CallOutcome.FAILED), switched(1)], [1]),
        ([called(0, CallOutcome.FAILED), switched(1), switched(2)], [2]),  # the second was never sent
        ([switched(1, beside=0)], [0, 1]),
        ([switched(1, beside=0), called(1, CallOutcome.FAILED)], [0]),
        ([switched(1, beside=0), called(0, CallOutcome.FAILED)], [1]),
        ([switched(1, beside=0), called(0, CallOutcome.FAILED), called(1, CallOutcome.FAILED), switched(2)], [2]),
        ([switched(1, beside=0), called(0, CallOutcome.FAILED), called(1, CallOutcome.CUT)], [2]),
        (
            [switched(1, beside=0), called(0, CallOutcome.FAILED), called(1, CallOutcome.CUT), switched(3, beside=2)],
            [2, 3],
        ),
    ],
)
def test_calls_that_were_under_way_are_known(entries: list[Entry], lost: list[int]) -> None:
    """One, or both of a pair; with where they went, if the journal says so."""
    delivery = Delivery(
        task=Task(prompt="hi", id="t"), entry_id="1", token="x", redeliveries=1, first=False, next_attempt=10
    )
    past = recall(entries, delivery)
    assert [call.attempt for call in past.lost_calls] == lost
    announced = {entry.attempt: entry.switch for entry in entries if isinstance(entry, Switched)}
    assert [call.switch for call in past.lost_calls] == [announced.get(attempt) for attempt in lost]


def test_a_pair_of_a_former_delivery_is_not_lost_twice() -> None:
    """Whoever took over has accounted for it."""
    entries: list[Entry] = [
        switched(1, beside=0),
        called(0, CallOutcome.LOST),
        called(1, CallOutcome.LOST),
        TakenOver(attempt=10, crashes=1),
    ]
    delivery = Delivery(
        task=Task(prompt="hi", id="t"), entry_id="1", token="x", redeliveries=2, first=False, next_attempt=20
    )
    assert [call.attempt for call in recall(entries, delivery).lost_calls] == [10]
