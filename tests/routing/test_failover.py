"""Runs whose calls go on at the next target when one fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from providers import AgentConfig, CallTool, ChunkFn, LLMProvider, Overloaded, ToolSpec, register
from providers.replay_server import ReplayServer
from queue_backends import Backend, CallOutcome, Task, TokenUsage
from tests.routing.conftest import WorkerFactory
from tests.routing.stage import Cue
from tests.routing.targets import LIMIT_S, calls_of, ended, failing, journal_of, scripted, shown, switches
from tests.routing.test_vendors import answer_of, recorded
from worker.client import Fleet
from worker.errors import Postponed
from worker.journal import ModelCall, Switched
from worker.live_settings import LiveSettings

GOOD = scripted("good", {"text": "here you are", "usage": {"input_tokens": 10, "output_tokens": 3}})


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("overloaded", "overloaded"),
        ("unavailable", "unavailable"),
        ("rate_limited", "rate_limited"),
        ("bad_response", "bad_response"),
        ("authentication_failed", "authentication_failed"),
    ],
)
async def test_a_failing_target_is_left_for_the_next(
    routed: WorkerFactory, backend: Backend, kind: str, reason: str
) -> None:
    """Whatever may be better elsewhere is tried elsewhere, at once; consumers, journal and books say what went where,
    and each call has an attempt of its own."""
    async with routed({"main": [failing("bad", kind), GOOD]}) as (fleet, worker):
        result, chunks = await ended(await fleet.submit("hi"))
        assert worker._around.providers._runs == {}  # nothing is held that a run has taken
        assert worker._around.metrics.routing.failovers == {("main", "scripted/bad", "scripted/good", reason): 1}
    assert (result.output, result.error) == ("here you are", "")
    assert shown(chunks) == "here you are"
    assert switches(chunks) == [("scripted/bad", "scripted/good", reason)]
    records = await calls_of(backend, result.task_id)
    assert [(record.model, record.outcome) for record in records] == [
        ("bad", CallOutcome.FAILED),
        ("good", CallOutcome.COMPLETED),
    ]
    assert [record.id for record in records] == [f"{result.task_id}:0:0", f"{result.task_id}:0:1"]
    assert (records[0].cost_usd, result.cost_usd) == (0.0, records[1].cost_usd)  # nobody bills an error
    failed, switched, completed = await journal_of(backend, result.task_id)
    assert isinstance(failed, ModelCall)
    assert isinstance(switched, Switched)
    assert isinstance(completed, ModelCall)
    assert (failed.target, completed.target) == ("scripted/bad", "scripted/good")
    assert (switched.switch.target, switched.switch.reason, switched.attempt) == ("scripted/good", reason, 1)


async def test_a_stream_that_breaks_is_superseded_by_the_next_target(routed: WorkerFactory, backend: Backend) -> None:
    """What the first one had said is dropped by consumers, and paid for: its record says that it was cut."""
    broken = failing("bad", "stream_broken", after_chunks=3, text="this will not end well")
    async with routed({"main": [broken, GOOD]}) as (fleet, _):
        result, chunks = await ended(await fleet.submit("hi"))
    assert shown(chunks) == result.output == "here you are"
    assert switches(chunks) == [("scripted/bad", "scripted/good", "stream_broken")]
    first, second = await calls_of(backend, result.task_id)
    assert (first.outcome, second.outcome) == (CallOutcome.CUT, CallOutcome.COMPLETED)
    assert first.usage.total_tokens > 0


@pytest.mark.parametrize("kind", ["refused", "invalid_request"])
async def test_what_no_other_target_would_do_better_ends_the_run(
    routed: WorkerFactory, backend: Backend, kind: str
) -> None:
    """A refusal, or a request that cannot be, is not shopped around."""
    async with routed({"main": [failing("bad", kind), GOOD]}) as (fleet, _):
        result, chunks = await ended(await fleet.submit("hi"))
    assert f"bad is {kind}" in result.error
    assert switches(chunks) == []
    assert len(await calls_of(backend, result.task_id)) == 1


async def test_when_all_fail_the_error_names_each_ones_reason(routed: WorkerFactory, backend: Backend) -> None:
    """And it is final only if none of them may do better later."""
    lost = [failing("one", "authentication_failed"), failing("two", "authentication_failed")]
    passing = [failing("three", "authentication_failed"), failing("four", "overloaded")]
    async with routed({"lost": lost, "passing": passing}, max_retries=1) as (fleet, _):
        never, _ = await ended(await fleet.submit("hi"))
        later, _ = await ended(await fleet.submit("hi", route="passing"))
    assert "scripted/one: one is authentication_failed; scripted/two: two is authentication_failed" in never.error
    assert len(await calls_of(backend, never.task_id)) == 2
    assert "scripted/four: four is overloaded" in later.error
    assert "scripted/three: " in later.error
    assert len(await calls_of(backend, later.task_id)) == 3  # the second attempt leaves out whose key is wrong


async def test_a_run_stays_with_the_target_that_answers(routed: WorkerFactory, backend: Backend) -> None:
    """Having failed over in its first turn, the run asks the same target for the next ones; the first is asked no
    more, though it is the route's first."""
    tools = {"tool_calls": [{"name": "missing"}]}
    good = scripted("good", tools, {"text": "done"})
    async with routed({"main": [failing("bad", "overloaded"), good]}) as (fleet, _):
        result, chunks = await ended(await fleet.submit("hi"))
    assert result.output == "done"
    assert [record.model for record in await calls_of(backend, result.task_id)] == ["bad", "good", "good"]
    assert len(switches(chunks)) == 1


async def test_a_single_target_starts_its_turn_over_as_without_a_route(routed: WorkerFactory, backend: Backend) -> None:
    """Where there is nowhere else to go, a stream that breaks is tried again there; attempts count on."""
    fault = {"kind": "stream_broken", "after_chunks": 1, "attempts": 1}
    async with routed({"main": [scripted("only", {"text": "now it works", "fault": fault})]}) as (fleet, _):
        result, chunks = await ended(await fleet.submit("hi"))
    assert shown(chunks) == result.output == "now it works"
    assert [record.outcome.value for record in await calls_of(backend, result.task_id)] == ["cut", "completed"]


async def test_attempts_of_one_delivery_are_bounded(routed: WorkerFactory, backend: Backend) -> None:
    """However many targets there are, a delivery uses no more attempts of a turn than it may."""
    many = [failing(f"m{number}", "overloaded") for number in range(14)]
    async with routed({"main": many}, max_retries=0) as (fleet, _):
        result, _ = await ended(await fleet.submit("hi"))
    assert "no target gave an answer" in result.error
    assert len(await calls_of(backend, result.task_id)) == 10


async def test_a_conversation_that_is_too_long_goes_to_a_larger_window_for_good(
    routed: WorkerFactory, backend: Backend
) -> None:
    """Not to one that is as small, and never back in this run: not even when the larger one fails later."""
    large = scripted(
        "large", {"tool_calls": [{"name": "missing"}]}, {"text": "x", "fault": {"kind": "unavailable"}}, max_context=32
    )
    targets = [
        failing("small", "context_too_long", max_context=8),
        scripted("as small", {"text": "no"}, max_context=8),
        large,
        scripted("largest", {"text": "all of it"}, max_context=64),
    ]
    async with routed({"main": targets}) as (fleet, _):
        result, chunks = await ended(await fleet.submit("hi"))
    assert result.output == "all of it"
    assert [record.model for record in await calls_of(backend, result.task_id)] == [
        "small",
        "large",
        "large",
        "largest",
    ]
    assert [reason for _, _, reason in switches(chunks)] == ["context_too_long", "unavailable"]


async def test_without_known_windows_the_one_that_was_too_small_is_left_for_good(
    routed: WorkerFactory, backend: Backend
) -> None:
    """Nobody knows which of the others is larger: they are tried; the one that is known to be too small never again."""
    passing = {"text": "x", "fault": {"kind": "unavailable"}}
    other = scripted("other", {"tool_calls": [{"name": "missing"}]}, passing)
    async with routed({"main": [failing("small", "context_too_long"), other]}, max_retries=0) as (fleet, _):
        result, _ = await ended(await fleet.submit("hi"))
    assert [record.model for record in await calls_of(backend, result.task_id)] == ["small", "other", "other"]
    assert "scripted/small: its window is too small for this conversation" in result.error


async def test_a_vendor_that_wants_a_long_wait_is_passed_by_until_then(routed: WorkerFactory, backend: Backend) -> None:
    """The task that met the limit goes on elsewhere at once, and so do those that come after it, unasked."""
    async with routed({"main": [failing("bad", "rate_limited", retry_after_s=3600), GOOD]}) as (fleet, _):
        first, _ = await ended(await fleet.submit("hi"))
        second, chunks = await ended(await fleet.submit("hi"))
    assert [record.model for record in await calls_of(backend, first.task_id)] == ["bad", "good"]
    assert [record.model for record in await calls_of(backend, second.task_id)] == ["good"]
    assert switches(chunks) == [("scripted/bad", "scripted/good", "rate_limited")]


async def test_an_open_circuit_is_passed_by(routed: WorkerFactory, backend: Backend) -> None:
    """After so many failures no call is tried there; what comes later begins at the next target, and says why."""
    route = {
        "targets": [failing("bad", "overloaded"), GOOD],
        "breaker": {"failures": 2, "open_s": 3600, "most_open_s": 3600},
    }
    async with routed({"main": route}) as (fleet, worker):
        results = [await ended(await fleet.submit("hi")) for _ in range(4)]
        circuits = worker._around.metrics.routing.circuits()
    asked = [[record.model for record in await calls_of(backend, result.task_id)] for result, _ in results]
    assert asked == [["bad", "good"], ["bad", "good"], ["good"], ["good"]]
    assert switches(results[3][1]) == [("scripted/bad", "scripted/good", "circuit_open")]
    assert circuits == [("scripted", "bad", "open"), ("scripted", "good", "closed")]


async def test_tasks_wait_while_no_target_can_be_asked(routed: WorkerFactory, backend: Backend) -> None:
    """With all circuits open a task is postponed: no attempt of it is counted, and when a probe succeeds, it runs."""
    shaky = scripted("shaky", {"text": "well again", "fault": {"kind": "overloaded", "attempts": 1}})
    route = {"targets": [shaky], "breaker": {"failures": 1, "open_s": 0.2}}
    async with routed({"main": route}, max_retries=1) as (fleet, _):
        result, _ = await ended(await fleet.submit("hi"))
    assert result.output == "well again"
    assert [record.outcome.value for record in await calls_of(backend, result.task_id)] == ["failed", "completed"]


class Turnstile:
    """A call gate with no room for some models, a given number of times."""

    active = True

    def __init__(self, **times: int) -> None:
        self.times = times
        self.inside: set[str] = set()

    async def enter(self, intent: Any) -> None:
        if self.times.get(intent.config.model, 0) > 0:
            self.times[intent.config.model] -= 1
            raise Postponed(f"no room for {intent.config.model}", retry_in_s=0.05)
        self.inside.add(intent.id)

    async def leave(self, intent: Any, record: Any, usage: Any) -> None:
        self.inside.remove(intent.id)

    def note(self, intent: Any, record: Any, usage: Any) -> None:
        self.inside.remove(intent.id)

    def abandon(self, intent: Any) -> None:
        self.inside.remove(intent.id)


@pytest.mark.parametrize("turned_away", [("one",), ("one", "two")])
async def test_where_a_limit_leaves_no_room_another_target_may(
    routed: WorkerFactory, backend: Backend, turned_away: tuple[str, ...]
) -> None:
    """A call that its gate keeps back goes elsewhere; if there is room nowhere, the task comes again, and no attempt of
    it has failed."""
    gate = Turnstile(**dict.fromkeys(turned_away, 1))
    targets = [scripted(model, {"text": f"{model} it is"}) for model in ("one", "two")]
    async with routed({"main": targets}, max_retries=0) as (fleet, worker):
        object.__setattr__(worker, "_around", replace(worker._around, gates=(gate,)))
        result, _ = await ended(await fleet.submit("hi"))
    assert result.output == ("two it is" if len(turned_away) == 1 else "one it is")
    assert len(await calls_of(backend, result.task_id)) == 1
    assert gate.inside == set()


async def test_new_settings_of_a_provider_close_its_circuits(
    routed: WorkerFactory, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address was wrong and is corrected: the next task need not wait for a probe."""
    async with ReplayServer([recorded("openai", "text")]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        route = {
            "targets": [{"model": "gpt-4.1-mini", "max_retries": 0}, scripted("spare", {"text": "spare"})],
            "breaker": {"failures": 1, "open_s": 999, "most_open_s": 999},
        }
        async with asyncio.timeout(LIMIT_S), routed({"main": route}) as (fleet, _):
            await answers(fleet, "spare")
            await LiveSettings(backend.state).set("plugin.openai.base_url", f"{server.url}/v1")
            await answers(fleet, answer_of("openai", "text"))


async def test_a_target_that_cannot_be_called_is_passed_by(routed: WorkerFactory, backend: Backend) -> None:
    """A provider that nobody registered, or that runs whole tasks, is a failure of that target alone."""

    class Whole:
        name = "whole-tasks"

        async def run_task(
            self, config: AgentConfig, task: Task, tools: list[ToolSpec], call_tool: CallTool, chunk_fn: ChunkFn
        ) -> tuple[str, TokenUsage]:
            raise AssertionError("it is not to be called")

    register("whole-tasks", Whole)  # type: ignore[arg-type]  # a class with the protocol's shape
    unfit: list[Any] = [{"provider": "nobody", "model": "m"}, {"provider": "whole-tasks", "model": "m"}]
    async with routed({"main": [*unfit, GOOD], "unfit": unfit}) as (fleet, _):
        result, chunks = await ended(await fleet.submit("hi"))
        failed, _ = await ended(await fleet.submit("hi", route="unfit"))
    assert result.output == "here you are"
    assert switches(chunks) == [("whole-tasks/m", "scripted/good", "unfit")]
    assert 'unknown provider "nobody"' in failed.error
    assert "runs whole tasks" in failed.error


async def test_a_provider_that_cannot_be_made_is_passed_by(routed: WorkerFactory) -> None:
    """Whatever its constructor raises, a missing package, say, is a failure of that target alone."""

    def make() -> LLMProvider:
        raise ImportError("no module named vendor_sdk")

    register("unmade", make)
    async with routed({"main": [{"provider": "unmade", "model": "m"}, GOOD]}) as (fleet, _):
        result, chunks = await ended(await fleet.submit("hi"))
    assert result.output == "here you are"
    assert switches(chunks) == [("unmade/m", "scripted/good", "unfit")]


async def test_a_call_whose_adapter_crashes_is_in_the_books(
    routed: WorkerFactory, backend: Backend, cues: dict[str, Cue]
) -> None:
    """It was sent, and is paid for: it has its record, like any call that failed."""
    cues["first"].error = KeyError("delta")
    cues["first"].speak.set()
    async with routed({"main": [{"provider": "stage", "model": "first"}]}, max_retries=0) as (fleet, _):
        result, _chunks = await ended(await fleet.submit("hi"))
    assert "delta" in result.error
    assert [record.outcome for record in await calls_of(backend, result.task_id)] == [CallOutcome.FAILED]


async def test_one_targets_error_is_raised_as_it_is(routed: WorkerFactory, cues: dict[str, Cue]) -> None:
    """With what caused it: an error must not be its own cause, which some programs follow without end."""
    cause = ConnectionResetError("gone")
    cues["first"].error = Overloaded("too much to do")
    cues["first"].error.__cause__ = cause
    cues["first"].speak.set()
    route = {"main": {"targets": [{"provider": "stage", "model": "first"}]}}
    async with routed(route, max_retries=0) as (fleet, _):
        await ended(await fleet.submit("hi"))
    assert cues["first"].error.__cause__ is cause


async def test_a_task_chooses_its_route_or_its_model(routed: WorkerFactory) -> None:
    """An override names another route; one that names a model means that model; one that names no route that there
    is fails at once, with the names that there are."""
    other = scripted("other", {"text": "from the other"})
    async with routed({"main": [GOOD], "other": [other]}) as (fleet, _):
        by_route, _ = await ended(await fleet.submit("hi", route="other"))
        by_model, _ = await ended(await fleet.submit("hi", model="mock"))
        unknown, _ = await ended(await fleet.submit("hi", route="nope"))
    assert (by_route.output, by_model.output) == ("from the other", "mock response")
    assert unknown.error == "there is no route 'nope'; there are: main, other"


async def test_a_live_route_counts_at_once_and_a_running_task_keeps_its_own(
    routed: WorkerFactory, backend: Backend, cues: dict[str, Cue]
) -> None:
    """A route that is set while the fleet runs serves the tasks that begin then, instead of the file's; unset, the
    file's counts again. A run in its middle fails over within the route that it began with."""
    old = [{"provider": "stage", "model": model} for model in ("first", "second")]
    cues["first"].error = Overloaded("too much to do")
    cues["second"].speak.set()
    cues["second"].end.set()
    live = LiveSettings(backend.state)
    async with asyncio.timeout(LIMIT_S), routed({"main": old}) as (fleet, _):
        running = await fleet.submit("hi")
        await cues["first"].asked.wait()
        await live.set("routes.main", '[{"provider": "mock", "model": "mock"}]')
        await answers(fleet, "mock response")
        cues["first"].speak.set()
        kept, _ = await ended(running)
        await live.unset("routes.main")
        await answers(fleet, "second speaks")
    assert kept.output == "second speaks"


async def answers(fleet: Fleet, text: str) -> None:
    """Submit tasks until one is answered so; if none is, say where they went instead, and why."""
    for _ in range(500):
        result, chunks = await ended(await fleet.submit("hi"))
        if result.output == text:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"no answer is {text!r}: {result}, {[chunk.metadata for chunk in chunks]}")
