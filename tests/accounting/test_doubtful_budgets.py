"""Accounts are lost or rebuilt in the worst moment: clocks that differ, frozen workers, older ones, bad entries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from queue_backends import Backend, CallOutcome, TokenUsage, open_backend
from tests.accounting.calls import call_record, model_call, used
from tests.accounting.test_lost_budgets import CALL, FLEET, KEY, LEASE_S, LIMIT_S, Worker
from worker.budgets.account import Account, Amount
from worker.budgets.charge import OpenAccount
from worker.budgets.rebuilding import rebuild
from worker.budgets.recounts import recount
from worker.shared_record import SharedRecord
from worker.usage import KEEP_S, UsageLedger

USAGE = TokenUsage(input_tokens=CALL // 2, output_tokens=CALL // 2)


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with await open_backend("memory://") as opened:
        yield opened


def _account(backend: Backend) -> SharedRecord[Account]:
    return SharedRecord(backend.state, KEY, Account)


async def _add(backend: Backend, account: Account) -> None:
    await _account(backend).update(lambda _: (account, None))


async def _recounted(backend: Backend, worker: Worker, at: Callable[[], float]) -> int:
    return await recount(backend.state, [OpenAccount(backend.state, worker.rules["b"], "fleet")], clock=at)


@pytest.mark.parametrize("ahead_s", [30.0, -30.0, 3600.0])
async def test_a_rebuild_counts_calls_of_a_worker_whose_clock_differs(backend: Backend, ahead_s: float) -> None:
    """They were settled before, and have ended after, if one believes that worker; or the other way round."""
    worker = Worker(backend, FLEET, clock=lambda: time.time() + ahead_s)
    intent = model_call("t1")
    await worker.gate.enter(intent)
    entry = used(intent, USAGE, at=time.time() + min(ahead_s, 500.0))
    await worker.gate.leave(intent, call_record(), entry)
    await backend.state.append_once([UsageLedger().log_record(entry)])
    await rebuild(backend.state, worker.rules, keep_s=KEEP_S, lag_s=0.0)
    assert (await worker.use()).tokens_used == CALL


async def test_a_lost_account_counts_what_a_worker_with_a_fast_clock_had_settled(backend: Backend) -> None:
    """The one who finds it missing is some seconds behind; it is made again of the log alone."""
    worker = Worker(backend, FLEET)
    intent = model_call("t1")
    await worker.gate.enter(intent)
    entry = used(intent, USAGE, at=time.time() + 8.0)
    await worker.gate.leave(intent, call_record(), entry)
    await backend.state.append_once([UsageLedger().log_record(entry)])
    await backend.state.delete(KEY)
    await rebuild(backend.state, worker.rules, keep_s=KEEP_S, lag_s=0.0)
    await _recounted(backend, worker, lambda: time.time() + 30.0)
    assert (await worker.use()).tokens_used == CALL


async def test_a_call_of_a_worker_that_was_frozen_over_a_rebuild_counts_once(backend: Backend) -> None:
    """Its call ended before the cut; it says so when the account has been added up for good, and writes its record
    then."""
    worker = Worker(backend, FLEET)
    intent = model_call("t1")
    await worker.gate.enter(intent)
    entry = used(intent, USAGE, at=time.time() - 1.0)
    await rebuild(backend.state, worker.rules, keep_s=KEEP_S, lag_s=0.0)
    assert await _recounted(backend, worker, lambda: time.time() + 200.0) == 1
    assert (await _account(backend).read()).recount_at == 0.0
    await worker.gate.leave(intent, call_record(), entry)
    assert (await worker.use()).tokens_used == CALL
    await backend.state.append_once([UsageLedger().log_record(entry)])
    assert await _recounted(backend, worker, lambda: time.time() + 400.0) == 1
    assert (await worker.use()).tokens_used == CALL
    assert await _recounted(backend, worker, lambda: time.time() + 900.0) == 0


async def test_a_call_that_has_used_nothing_does_not_hide_that_its_account_was_lost(backend: Backend) -> None:
    """Another call of the same worker is under way: what it holds is said, in an account that is to be added up."""
    worker = Worker(backend, FLEET)
    await worker.call(model_call("t1"))
    going_on, failing = model_call("t2"), model_call("t3")
    await worker.gate.enter(going_on)
    await worker.gate.enter(failing)
    await backend.state.delete(KEY)
    failed = used(failing, TokenUsage(), outcome=CallOutcome.FAILED)
    await worker.gate.leave(failing, call_record(CallOutcome.FAILED), failed)
    assert (await _account(backend).read()).is_lost
    async with worker.gate.kept(), asyncio.timeout(LIMIT_S):
        await worker.gate.enter(model_call("t4"))
    assert (await worker.use()).tokens_used == CALL


async def test_an_account_that_an_older_version_began_is_kept(backend: Backend) -> None:
    """The records of its first calls name no account: the log would forget what they spent."""
    await _add(backend, Account(spent={0: Amount(5 * CALL, 0)}))
    worker = Worker(backend, FLEET)
    await worker.call(model_call("t1"))
    [kept] = await rebuild(backend.state, worker.rules, keep_s=KEEP_S, lag_s=0.0)
    assert (kept.is_kept, kept.tokens_after) == (True, 6 * CALL)
    [forced] = await rebuild(backend.state, worker.rules, keep_s=KEEP_S, lag_s=0.0, by_force=True)
    assert (forced.is_kept, forced.tokens_after) == (False, CALL)


async def test_what_is_over_is_not_written_into_a_rebuilt_account(backend: Backend) -> None:
    """The log goes back for weeks; a rolling day needs one of them."""
    worker = Worker(backend, {"b": {"scope": "fleet", "tokens": 100 * CALL, "period": "day"}})
    await worker.call(model_call("t1"))
    key = "budget:b:fleet:day:fleet"
    for days in range(1, 20):
        old = used(model_call(f"old{days}"), USAGE, at=time.time() - days * 86_400 - 600)
        await backend.state.append_once([UsageLedger().log_record(replace(old, charged_to=(key,)))])
    [found] = await rebuild(backend.state, worker.rules, keep_s=KEEP_S, lag_s=0.0)
    stored = await SharedRecord(backend.state, key, Account).read()
    assert found.tokens_after == CALL
    assert len(stored.earlier) == 1


async def test_an_account_that_cannot_be_read_lets_go_no_other_hold(backend: Backend) -> None:
    """Somebody has written it by hand while calls are under way: those of other accounts are held on."""
    worker = Worker(backend, {"a": FLEET["b"], **FLEET})
    with capture_logs() as lines:
        async with worker.gate.kept(), asyncio.timeout(LIMIT_S):
            await worker.gate.enter(model_call("t1"))
            began = (await _account(backend).read()).holds
            await backend.state.set("budget:a:fleet:ever:fleet", b"what?")
            while (await _account(backend).read()).holds == began:
                await asyncio.sleep(0.01)
            [before] = began.values()
            [after] = (await _account(backend).read()).holds.values()
    assert after.until > before.until >= time.time() - LIMIT_S - LEASE_S
    assert any(line["log_level"] == "error" and line.get("account") == "budget:a:fleet:ever:fleet" for line in lines)
