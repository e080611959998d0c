"""Calls that say nothing for too long, and the second ones beside them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from providers import AgentConfig, AuthenticationFailed, LLMProvider, Overloaded, Refused
from queue_backends import RUN_CANCELLED, Backend, CallOutcome, TokenUsage
from tests.routing.conftest import WorkerFactory
from tests.routing.stage import Cue
from tests.routing.targets import LIMIT_S, calls_of, ended, journal_of, shown, switches
from worker.journal import Switched
from worker.routing.run_providers import RunProviders
from worker.task_run import Stop


def route(*models: str, hedge_after_s: float = 0.02) -> dict[str, Any]:
    """A route of such models that hedges soon."""
    return {
        "main": {
            "targets": [{"provider": "stage", "model": model} for model in models],
            "hedge_after_s": hedge_after_s,
        }
    }


@pytest.mark.parametrize("winner", ["first", "second"])
async def test_who_speaks_first_wins_and_nobody_hears_of_the_other(
    routed: WorkerFactory, backend: Backend, cues: dict[str, Cue], winner: str
) -> None:
    """Both are asked, the loser is ended at once, while the winner still speaks; its cost is estimated and recorded as
    cancelled; only the winner's words are published, and only a change of target is told."""
    loser = "second" if winner == "first" else "first"
    async with asyncio.timeout(LIMIT_S), routed(route("first", "second")) as (fleet, worker):
        handle = await fleet.submit("a prompt of some length")
        await cues["second"].asked.wait()
        cues[winner].speak.set()
        await cues[loser].gone.wait()
        assert not cues[winner].gone.is_set()
        cues[winner].end.set()
        result, chunks = await ended(handle)
        hedges = worker._around.metrics.routing.hedges
    assert result.output == shown(chunks) == f"{winner} speaks"
    assert loser not in "".join(chunk.content for chunk in chunks)
    hedged = winner == "second"
    assert {chunk.attempt for chunk in chunks} == {1 if hedged else 0}
    assert switches(chunks) == ([("stage/first", "stage/second", "slow")] if hedged else [])
    assert hedges == {("main", "stage/second", "won" if hedged else "lost"): 1}
    by_model = {record.model: record for record in await calls_of(backend, result.task_id)}
    assert by_model[winner].outcome is CallOutcome.COMPLETED
    assert by_model[loser].outcome is CallOutcome.CANCELLED
    assert (by_model[loser].estimated, by_model[loser].usage.input_tokens) == (
        True,
        len("a prompt of some length") // 4,
    )
    assert {record.id[-3:] for record in by_model.values()} == {"0:0", "0:1"}
    (switched,) = [entry for entry in await journal_of(backend, result.task_id) if isinstance(entry, Switched)]
    assert (switched.attempt, switched.switch.beside) == (1, 0)


async def test_when_both_speak_at_once_one_is_heard(
    routed: WorkerFactory, backend: Backend, cues: dict[str, Cue]
) -> None:
    """In the very same turn of the event loop: the other's words go nowhere, to its end."""
    async with asyncio.timeout(LIMIT_S), routed(route("first", "second")) as (fleet, _):
        handle = await fleet.submit("hi")
        await cues["second"].asked.wait()
        for event in ("speak", "end"):
            for model in ("first", "second"):
                getattr(cues[model], event).set()
        result, chunks = await ended(handle)
    text = "".join(chunk.content for chunk in chunks)
    assert text in ("first speaks", "second speaks")
    assert result.output == text
    outcomes = [record.outcome for record in await calls_of(backend, result.task_id)]
    assert sorted(outcomes) == [CallOutcome.CANCELLED, CallOutcome.COMPLETED]


async def test_the_size_of_the_prompt_is_no_word(routed: WorkerFactory, backend: Backend, cues: dict[str, Cue]) -> None:
    """A vendor that tells its usage before the answer begins has said nothing yet, and gets a hedge; what it told is
    what the loser's record says."""
    cues["first"].told = TokenUsage(input_tokens=70, output_tokens=1)
    cues["second"].speak.set()
    cues["second"].end.set()
    async with asyncio.timeout(LIMIT_S), routed(route("first", "second")) as (fleet, _):
        result, _chunks = await ended(await fleet.submit("hi"))
        lost, won = await calls_of(backend, result.task_id)
    assert result.output == "second speaks"
    assert (lost.outcome, lost.estimated, lost.usage.input_tokens) == (CallOutcome.CANCELLED, False, 70)
    assert won.outcome is CallOutcome.COMPLETED


class SlowlyTaken:
    """The instance for the model `second` comes when the test lets it, or not at all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looked_for, self.found = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None
        self._take = RunProviders.take
        monkeypatch.setattr(RunProviders, "take", lambda providers, config: self.take(providers, config))

    async def take(self, providers: RunProviders, config: AgentConfig) -> LLMProvider:
        if config.model == "second":
            self.looked_for.set()
            await self.found.wait()
            if self.error is not None:
                raise self.error
        return await self._take(providers, config)


async def test_no_hedge_is_begun_once_the_first_has_spoken(
    routed: WorkerFactory, backend: Backend, cues: dict[str, Cue], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second target that takes its time to be found, as one with new settings may, is not called any more."""
    slow = SlowlyTaken(monkeypatch)
    async with asyncio.timeout(LIMIT_S), routed(route("first", "second")) as (fleet, worker):
        handle = await fleet.submit("hi")
        await slow.looked_for.wait()
        cues["first"].speak.set()
        cues["first"].end.set()
        await cues["first"].gone.wait()
        slow.found.set()
        result, _ = await ended(handle)
        assert all(state.in_flight == 0 for _, state in worker._around.routing.states.known())
    assert result.output == "first speaks"
    assert cues["second"].calls == 0
    assert not [entry for entry in await journal_of(backend, result.task_id) if isinstance(entry, Switched)]
    assert len(await calls_of(backend, result.task_id)) == 1


async def test_a_hedge_that_cannot_be_found_while_the_first_call_fails(
    routed: WorkerFactory, cues: dict[str, Cue], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn goes on at a third target, as after any failure."""
    slow = SlowlyTaken(monkeypatch)
    slow.error = AuthenticationFailed("no key")
    cues["first"].error = Overloaded("too much to do")
    cues["third"].speak.set()
    cues["third"].end.set()
    async with asyncio.timeout(LIMIT_S), routed(route("first", "second", "third"), max_retries=0) as (fleet, worker):
        handle = await fleet.submit("hi")
        await slow.looked_for.wait()
        cues["first"].speak.set()
        while any(state.in_flight for _, state in worker._around.routing.states.known()):
            await asyncio.sleep(0)
        slow.found.set()
        result, chunks = await ended(handle)
    assert (result.output, result.error) == ("third speaks", "")
    assert [switch[1] for switch in switches(chunks)] == ["stage/third"]


async def test_a_call_that_speaks_in_time_has_no_hedge(
    routed: WorkerFactory, backend: Backend, cues: dict[str, Cue]
) -> None:
    """However long it then takes to its end."""
    cues["first"].speak.set()
    async with asyncio.timeout(LIMIT_S), routed(route("first", "second", hedge_after_s=20)) as (fleet, _):
        handle = await fleet.submit("hi")
        await cues["first"].asked.wait()
        cues["first"].end.set()
        result, _ = await ended(handle)
    assert result.output == "first speaks"
    assert cues["second"].calls == 0
    assert len(await calls_of(backend, result.task_id)) == 1


@pytest.mark.parametrize("fails", ["first", "second"])
async def test_when_one_of_the_two_fails_the_other_goes_on(
    routed: WorkerFactory, backend: Backend, cues: dict[str, Cue], fails: str
) -> None:
    """A failure before anybody has spoken costs nothing but its call."""
    other = "second" if fails == "first" else "first"
    cues[fails].error = Overloaded(f"{fails} has too much to do")
    async with asyncio.timeout(LIMIT_S), routed(route("first", "second")) as (fleet, _):
        handle = await fleet.submit("hi")
        await cues["second"].asked.wait()
        cues[fails].speak.set()
        await cues[fails].gone.wait()
        cues[other].speak.set()
        cues[other].end.set()
        result, _ = await ended(handle)
    assert result.output == f"{other} speaks"
    by_model = {record.model: record.outcome for record in await calls_of(backend, result.task_id)}
    assert by_model == {fails: CallOutcome.FAILED, other: CallOutcome.COMPLETED}


async def test_when_both_fail_the_turn_goes_on_at_the_next_target(
    routed: WorkerFactory, backend: Backend, cues: dict[str, Cue]
) -> None:
    """Three calls, three attempts."""
    for name in ("first", "second"):
        cues[name].error = Overloaded(f"{name} has too much to do")
    cues["third"].speak.set()
    cues["third"].end.set()
    async with asyncio.timeout(LIMIT_S), routed(route("first", "second", "third")) as (fleet, _):
        handle = await fleet.submit("hi")
        await cues["second"].asked.wait()
        cues["first"].speak.set()
        cues["second"].speak.set()
        result, chunks = await ended(handle)
    assert result.output == shown(chunks) == "third speaks"
    assert [record.id[-3:] for record in await calls_of(backend, result.task_id)] == ["0:0", "0:1", "0:2"]


async def test_a_hedge_that_is_refused_leaves_the_first_call_alone(routed: WorkerFactory, cues: dict[str, Cue]) -> None:
    """What would end a run, had it been its only call, is no matter while the other one goes on."""
    cues["second"].error = Refused("not me")
    async with asyncio.timeout(LIMIT_S), routed(route("first", "second")) as (fleet, _):
        handle = await fleet.submit("hi")
        await cues["second"].asked.wait()
        cues["second"].speak.set()
        await cues["second"].gone.wait()
        cues["first"].speak.set()
        cues["first"].end.set()
        result, _ = await ended(handle)
    assert result.output == "first speaks"


@pytest.mark.parametrize("why", ["cancelled", "timed out", "lease lost"])
async def test_whatever_ends_the_run_ends_both_calls(
    routed: WorkerFactory, backend: Backend, cues: dict[str, Cue], why: str
) -> None:
    """A cancel, a time limit, a lost lease: both connections are closed; where the run is still ours, both calls are
    in the books."""
    async with asyncio.timeout(LIMIT_S), routed(route("first", "second"), max_retries=0) as (fleet, worker):
        handle = await fleet.submit("hi")
        await cues["second"].asked.wait()
        if why == "cancelled":
            await handle.cancel()
        else:
            next(iter(worker.runs)).stop(Stop(why))
        await cues["first"].gone.wait()
        await cues["second"].gone.wait()
        if why == "lease lost":
            return
        result, _ = await ended(handle)
    assert result.error == RUN_CANCELLED if why == "cancelled" else "took longer" in result.error
    outcomes = [record.outcome for record in await calls_of(backend, result.task_id)]
    assert outcomes == [CallOutcome.CANCELLED, CallOutcome.CANCELLED]


class Gate:
    """A call gate that keeps account of who is inside, and may hold back the second call."""

    active = True

    def __init__(self, *, refuses_second: bool = False) -> None:
        self.inside: set[str] = set()
        self.seen: list[tuple[str, str, str]] = []
        self.refuses_second = refuses_second
        self.refused = asyncio.Event()

    async def enter(self, intent: Any) -> None:
        if self.refuses_second and intent.request.attempt == 1:
            self.refused.set()
            raise RuntimeError("no room for another")
        self.inside.add(intent.id)
        self.seen.append((intent.id.partition(":")[2], intent.provider, intent.config.model))

    async def leave(self, intent: Any, record: Any, usage: Any) -> None:
        self.inside.remove(intent.id)

    def note(self, intent: Any, record: Any, usage: Any) -> None:
        self.inside.remove(intent.id)

    def abandon(self, intent: Any) -> None:
        self.inside.remove(intent.id)


@pytest.mark.parametrize("refuses", [False, True])
async def test_both_calls_pass_the_gates(routed: WorkerFactory, cues: dict[str, Cue], refuses: bool) -> None:
    """Each under its own id, with its own provider and model; both leave; a hedge that is not let through is none."""
    gate = Gate(refuses_second=refuses)
    async with asyncio.timeout(LIMIT_S), routed(route("first", "second")) as (fleet, worker):
        object.__setattr__(worker, "_around", _with_gate(worker._around, gate))
        handle = await fleet.submit("hi")
        await (gate.refused if refuses else cues["second"].asked).wait()
        cues["first"].speak.set()
        cues["first"].end.set()
        result, _ = await ended(handle)
    assert result.output == "first speaks"
    assert gate.inside == set()
    expected = [("0:0", "stage", "first"), ("0:1", "stage", "second")]
    assert gate.seen == expected[: 1 if refuses else 2]


def _with_gate(around: Any, gate: Gate) -> Any:
    from msgspec.structs import replace

    return replace(around, gates=(gate,))
