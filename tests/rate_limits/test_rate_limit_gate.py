"""The gate before each model call, over a real store: two gates here stand for two workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from providers.retry import is_gated
from queue_backends import BackendUnavailable, CallOutcome, StateStore, TokenUsage, open_backend
from tests.accounting.calls import call_record, model_call, used
from worker.call_estimates import CallEstimates
from worker.call_gates import ModelCallIntent
from worker.errors import Postponed
from worker.live_settings import LiveSettings
from worker.metrics import Metrics
from worker.prometheus import render
from worker.rate_limits.gate import RateLimitGate
from worker.rate_limits.live import following
from worker.rate_limits.report import limit_uses
from worker.rate_limits.rules import read_limits

LIMIT_S = 30.0
USAGE = TokenUsage(input_tokens=100, output_tokens=20)


@pytest.fixture
async def state() -> AsyncIterator[StateStore]:
    """A store of this test's own."""
    async with await open_backend("memory://") as backend:
        yield backend.state


@asynccontextmanager
async def gate_on(
    state: StateStore, *, wait_s: float = LIMIT_S, metrics: Metrics | None = None, **limit: Any
) -> AsyncIterator[RateLimitGate]:
    """A worker's gate with one limit, `main`."""
    limits = read_limits({"main": limit})
    metrics = metrics or Metrics()
    gate = RateLimitGate(state, limits, estimates=CallEstimates(), metrics=metrics, wait_s=wait_s)
    async with gate.kept():
        yield gate


async def leave(gate: RateLimitGate, call: ModelCallIntent, **record: Any) -> None:
    """The call has ended."""
    ended = msgspec.structs.replace(call_record(record.pop("outcome", CallOutcome.COMPLETED)), **record)
    await gate.leave(call, ended, used(call, USAGE if ended.outcome is CallOutcome.COMPLETED else TokenUsage()))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Look until it is so; a test's last resort where nobody tells."""
    async with asyncio.timeout(LIMIT_S):
        while not await condition():
            await asyncio.sleep(0.01)


def calls(count: int, **fields: Any) -> list[ModelCallIntent]:
    """Calls of as many tasks."""
    return [model_call(f"t{number}", **fields) for number in range(count)]


async def test_a_call_waits_for_another_workers_end(state: StateStore) -> None:
    """One call at a time in the fleet: the second one, in another worker, is let through when the first has ended."""
    async with gate_on(state, concurrent=1) as here, gate_on(state, concurrent=1) as there:
        first, second = calls(2)
        await here.enter(first)
        waiting = asyncio.create_task(there.enter(second))

        async def waits() -> bool:
            return (await limit_uses(state))[0].waiting == 1

        await until(waits)
        assert not waiting.done()
        await leave(here, first)
        await asyncio.wait_for(waiting, LIMIT_S)


async def test_a_call_that_waits_too_long_is_postponed(state: StateStore) -> None:
    """Its task shall give the slot back: it hears which limit, and when to come again."""
    metrics = Metrics()
    async with gate_on(state, wait_s=0.05, metrics=metrics, concurrent=1) as gate:
        first, second = calls(2)
        await gate.enter(first)
        with pytest.raises(Postponed, match="rate limit 'main' of scripted") as caught:
            await gate.enter(second)
        assert caught.value.retry_in_s > 0
        assert metrics.rate_limit("main").postponed == 1
        await leave(gate, first)
        await asyncio.wait_for(gate.enter(second), LIMIT_S)


async def test_a_call_without_hope_is_postponed_at_once(state: StateStore) -> None:
    """There will be no room within the time that it may wait: its slot is free for others right away."""
    async with gate_on(state, wait_s=LIMIT_S, requests_per_min=0.5, burst_s=1) as gate:
        first, second = calls(2)
        await gate.enter(first)
        with pytest.raises(Postponed):
            await asyncio.wait_for(gate.enter(second), LIMIT_S / 2)


@pytest.mark.parametrize("how", ["abandoned", "cancelled"])
async def test_room_that_is_not_used_goes_back(state: StateStore, how: str) -> None:
    """A call that was not sent, and one whose run was cancelled while it went on, make room for the next."""
    async with gate_on(state, concurrent=1) as gate:
        first, second = calls(2)
        await gate.enter(first)
        if how == "abandoned":
            gate.abandon(first)
        else:
            gate.note(first, call_record(CallOutcome.CANCELLED), used(first, TokenUsage()))
        await asyncio.wait_for(gate.enter(second), LIMIT_S)


async def test_a_cancelled_wait_takes_nothing(state: StateStore) -> None:
    """Whoever waits and is cancelled leaves the room to others."""
    async with gate_on(state, concurrent=1) as gate:
        first, second, third = calls(3)
        await gate.enter(first)
        waiting = asyncio.create_task(gate.enter(second))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await leave(gate, first)
        await asyncio.wait_for(gate.enter(third), LIMIT_S)


async def test_a_wait_can_be_cancelled_at_any_moment(state: StateStore) -> None:
    """Before it was asked for, while the store works, and after room was found: none of it is lost."""
    async with gate_on(state, concurrent=1) as gate:
        for moments in range(40):
            call = model_call(f"t{moments}")
            entering = asyncio.create_task(gate.enter(call))
            for _ in range(moments):
                await asyncio.sleep(0)
            entering.cancel()
            await asyncio.wait([entering])
            if not entering.cancelled():
                gate.abandon(call)
        await asyncio.wait_for(gate.enter(model_call("last")), LIMIT_S)


async def test_a_call_passes_all_its_limits_or_none(state: StateStore) -> None:
    """What it took of one limit goes back if another has no room."""
    limits = read_limits({"a": {"concurrent": 2}, "b": {"concurrent": 1, "where": {"tenant": "acme"}, "wait_s": 0.05}})
    gate = RateLimitGate(state, limits, estimates=CallEstimates(), metrics=Metrics())
    first, second = calls(2, task={"tenant": "acme"})
    (third,) = calls(1, task={"tenant": "other"})
    async with gate.kept():
        await gate.enter(first)
        with pytest.raises(Postponed, match="rate limit 'b'"):
            await gate.enter(second)
        await asyncio.wait_for(gate.enter(third), LIMIT_S)


async def test_a_refusal_stops_the_whole_fleet(state: StateStore) -> None:
    """One worker's call is refused by the vendor: the other's next one is not even sent."""
    async with (
        gate_on(state, requests_per_min=600) as here,
        gate_on(state, requests_per_min=600, wait_s=0.1) as there,
    ):
        first, second = calls(2)
        await here.enter(first)
        await leave(here, first, outcome=CallOutcome.FAILED, rate_limited=True, retry_after_s=60.0)

        async def is_closed() -> bool:
            return (await limit_uses(state))[0].closed_s > 0

        await until(is_closed)
        with pytest.raises(Postponed, match="refuses calls") as caught:
            await there.enter(second)
        assert caught.value.retry_in_s > 50


async def test_room_is_taken_and_settled(state: StateStore) -> None:
    """What a call was expected to use counts while it goes on, what it did use afterwards."""
    async with gate_on(state, requests_per_min=600, tokens_per_min=60_000) as gate:
        (call,) = calls(1, prompt="x" * 4000, max_tokens=100)
        await gate.enter(call)

        async def tokens() -> float:
            return next(use.used for use in (await limit_uses(state))[0].uses if use.kind == "tokens")

        assert await tokens() == pytest.approx(1106, rel=0.1)
        await leave(gate, call)

        async def is_settled() -> bool:
            return await tokens() == pytest.approx(120, abs=1)

        await until(is_settled)


async def test_a_long_call_is_settled(state: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that takes longer than accounts are kept in mind without one: what it used is told all the same."""
    monkeypatch.setattr("worker.rate_limits.clerk._IDLE_S", 0.001)
    async with gate_on(state, tokens_per_min=60_000) as gate:
        (call,) = calls(1, prompt="x" * 4000)
        await gate.enter(call)
        await asyncio.sleep(0.05)  # many times as long as an idle account is kept; the test holds if it is less
        await leave(gate, call)

        async def is_settled() -> bool:
            return (await limit_uses(state))[0].uses[0].used == pytest.approx(120, abs=1)

        await until(is_settled)


async def test_cached_input_counts_as_the_vendor_has_it(state: StateStore) -> None:
    """What came from the cache is free under Anthropic's limits, and used up under those of others."""
    usage = TokenUsage(input_tokens=1000, output_tokens=0, cache_read_tokens=900)
    for provider, expected in (("anthropic", 100), ("openai", 1000)):
        async with gate_on(state, input_tokens_per_min=1e6) as gate:
            (call,) = calls(1, provider=provider)
            await gate.enter(call)
            await gate.leave(call, call_record(), used(call, usage))
        use = next(use for use in await limit_uses(state) if use.account == provider)
        assert use.uses[0].used == pytest.approx(expected, abs=1)


async def test_the_transport_leaves_refusals_to_the_gate(state: StateStore) -> None:
    """A call that stands in a limit of a key is gated; one that no limit is about, or only a tenant's, is not."""
    (call,) = calls(1, task={"tenant": "acme"})
    for limit, gated in (({}, True), ({"per": "tenant", "concurrent": 5}, False), ({"where": {"model": "x"}}, False)):
        is_gated.set(False)
        async with gate_on(state, **limit) as gate:
            await gate.enter(call)
            gate.abandon(call)
        assert is_gated.get() is gated


async def test_live_changes_reach_those_who_wait(state: StateStore) -> None:
    """A limit is raised, set anew or lifted while calls wait: they go on at once, whatever the limit had been."""
    declared = read_limits({"main": {"concurrent": 1}})
    gate = RateLimitGate(state, declared, estimates=CallEstimates(), metrics=Metrics(), wait_s=LIMIT_S)
    first, second, third, fourth = calls(4)
    async with LiveSettings(state) as live, gate.kept():
        with following(gate, declared, live):
            await gate.enter(first)
            waiting = asyncio.create_task(gate.enter(second))
            await live.set("limits.main", '{"concurrent": 2}')
            await asyncio.wait_for(waiting, LIMIT_S)
            waiting = asyncio.create_task(gate.enter(third))
            await asyncio.sleep(0)
            await live.set("limits.main", "off")
            await asyncio.wait_for(waiting, LIMIT_S)
            assert not gate.active
            await live.unset("limits.main")
            assert gate.limits == declared
            for call in (first, second, third):
                gate.abandon(call)
            await asyncio.wait_for(gate.enter(fourth), LIMIT_S)


class Away:
    """A store that cannot be reached, or reached again."""

    def __init__(self, inner: StateStore) -> None:
        self._inner = inner
        self.is_away = False

    def __getattr__(self, name: str) -> Any:
        if self.is_away and name in ("get", "set", "compare_and_set"):
            return self._fail
        return getattr(self._inner, name)

    async def _fail(self, *_: object, **__: object) -> None:
        raise BackendUnavailable("gone")


async def test_while_the_store_is_away_each_worker_keeps_the_limit(state: StateStore) -> None:
    """Calls are let through, no more than the worker's part; and all is shared again when the store is back."""
    away = Away(state)
    async with gate_on(away, wait_s=0.05, concurrent=2) as gate:
        away.is_away = True
        first, second, third, fourth = calls(4)
        await gate.enter(first)
        await gate.enter(second)
        with pytest.raises(Postponed):
            await gate.enter(third)
        away.is_away = False
        await leave(gate, first)
        await asyncio.wait_for(gate.enter(fourth), LIMIT_S)

        async def is_shared() -> bool:
            return [use.uses[0].used for use in await limit_uses(state)] == [2]

        await until(is_shared)


async def test_a_record_that_cannot_be_read_stops_nobody(state: StateStore) -> None:
    """Something else stands under the key: calls go on, and the reader leaves it out."""
    await state.set("rate:main/scripted", b"no record")
    async with gate_on(state, concurrent=2) as gate:
        await asyncio.wait_for(gate.enter(calls(1)[0]), LIMIT_S)
    assert await limit_uses(state) == []


async def test_a_worker_that_leaves_holds_nothing(state: StateStore) -> None:
    """Its calls are over: the next worker need not wait until they expire."""
    async with gate_on(state, concurrent=1) as gate:
        await gate.enter(calls(1)[0])
    async with gate_on(state, concurrent=1) as gate:
        await asyncio.wait_for(gate.enter(calls(1)[0]), LIMIT_S)


async def test_without_limits_nothing_is_asked(state: StateStore) -> None:
    """A gate without limits is not active; a call that no limit is about leaves no trace."""
    gate = RateLimitGate(state, {}, estimates=CallEstimates(), metrics=Metrics())
    assert not gate.active
    async with gate_on(state, where={"provider": "other"}) as gate:
        (call,) = calls(1)
        await gate.enter(call)
        await leave(gate, call)
    assert await limit_uses(state) == []


async def test_many_calls_of_many_tenants(state: StateStore) -> None:
    """Two workers, four tenants, one of them with nearly all the calls: everybody is answered, none twice, and never
    more at once than allowed."""
    running = most = done = 0

    async def one(gate: RateLimitGate, call: ModelCallIntent) -> None:
        nonlocal running, most, done
        while True:
            with contextlib.suppress(Postponed):
                await gate.enter(call)
                break
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        done += 1
        await leave(gate, call)

    async with (
        gate_on(state, concurrent=5) as here,
        gate_on(state, concurrent=5) as there,
        asyncio.timeout(LIMIT_S),
        asyncio.TaskGroup() as group,
    ):
        for number in range(160):
            tenant = "large" if number % 20 else f"small{number // 60}"
            call = model_call(f"t{number}", task={"tenant": tenant})
            group.create_task(one(here if number % 2 else there, call))
    assert (done, running) == (160, 0)
    assert most <= 5


async def test_the_metrics_tell_of_each_limit(state: StateStore) -> None:
    """What was refused, postponed and waited for, and how much of each kind is used."""
    metrics = Metrics()
    async with gate_on(state, wait_s=0.05, metrics=metrics, requests_per_min=600, concurrent=1) as gate:
        first, second = calls(2)
        await gate.enter(first)
        with pytest.raises(Postponed):
            await gate.enter(second)
        await leave(gate, first, outcome=CallOutcome.FAILED, rate_limited=True, retry_after_s=60.0)
    page = render(metrics)
    assert 'shoal_rate_limit_refused_total{namespace="",limit="main"} 1' in page
    assert 'shoal_rate_limit_postponed_total{namespace="",limit="main"} 1' in page
    assert 'shoal_rate_limit_wait_seconds_count{namespace="",limit="main"} 1' in page
    assert 'shoal_rate_limit_used{namespace="",limit="main",kind="requests"} 0.00' in page
    assert 'shoal_rate_limit_used{namespace="",limit="main",kind="concurrent"} 0' in page
