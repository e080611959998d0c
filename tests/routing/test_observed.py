"""What operators see of routes: spans, metrics, timelines."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from queue_backends import Backend
from tests.routing.conftest import WorkerFactory
from tests.routing.stage import Cue
from tests.routing.targets import LIMIT_S, ended, failing, scripted
from worker.cli.screen import Cell
from worker.cli.timeline import timeline
from worker.journal import read_journal
from worker.metric_families import families
from worker.telemetry import Telemetry


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Keeps the spans of the workers that are started from now on."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(tracer_provider=provider)
    monkeypatch.setattr(Telemetry, "from_environment", lambda **_: telemetry)
    return exporter


def calls(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """The spans of model calls, by the model that was asked; each a child of the task's span."""
    found = exporter.get_finished_spans()
    (task,) = [span for span in found if span.name.startswith("invoke_agent")]
    called = {str((span.attributes or {})["llm.model"]): span for span in found if span.name.startswith("chat")}
    assert task.context is not None
    for span in called.values():
        assert span.parent is not None
        assert span.parent.span_id == task.context.span_id
    return called


async def test_each_call_has_a_span_and_the_switch_is_told_there(
    routed: WorkerFactory, spans: InMemorySpanExporter
) -> None:
    """With provider, model, route and target of its own; the one that was switched to says from where, and why."""
    async with routed({"main": [failing("bad", "overloaded"), scripted("good", {"text": "yes"})]}) as (fleet, _):
        await ended(await fleet.submit("hi"))
    called = calls(spans)
    assert list(called) == ["bad", "good"]
    for model, span in called.items():
        attributes = dict(span.attributes or {})
        assert attributes["shoal.route"] == "main"
        assert attributes["shoal.route.target"] == f"scripted/{model}"
    assert (called["bad"].attributes or {})["error.type"] == "failed"
    (event,) = called["good"].events
    assert event.name == "route.switch"
    assert dict(event.attributes or {}) == {
        "from": "scripted/bad",
        "reason": "overloaded",
        "error": "bad is overloaded",
    }


async def test_both_calls_of_a_pair_have_spans(
    routed: WorkerFactory, spans: InMemorySpanExporter, cues: dict[str, Cue]
) -> None:
    """The loser's ends as cancelled; both belong to the task, not to each other."""
    targets = [{"provider": "stage", "model": model} for model in ("first", "second")]
    route = {"targets": targets, "hedge_after_s": 0.02}
    async with asyncio.timeout(LIMIT_S), routed({"main": route}) as (fleet, _):
        handle = await fleet.submit("hi")
        await cues["second"].asked.wait()
        cues["second"].speak.set()
        cues["second"].end.set()
        await ended(handle)
    called = calls(spans)
    assert set(called) == {"first", "second"}
    assert (called["first"].attributes or {})["error.type"] == "cancelled"
    assert "error.type" not in (called["second"].attributes or {})


async def test_switches_and_circuits_are_metrics(routed: WorkerFactory) -> None:
    """By route, target and reason; and calls count under the target's own provider and model."""
    route = {"targets": [failing("bad", "overloaded"), scripted("good", {"text": "yes"})], "breaker": {"failures": 1}}
    async with routed({"main": route}) as (fleet, worker):
        await ended(await fleet.submit("hi"))
        metrics = worker._around.metrics
        found = {
            family.name: [(dict(sample.labels), sample.value) for sample in family.samples]
            for family in families(metrics)
        }
    switch = {"route": "main", "from": "scripted/bad", "target": "scripted/good", "reason": "overloaded"}
    assert found["route.failovers"] == [(switch, 1)]
    states = {labels["model"]: labels["state"] for labels, _ in found["route.circuit"]}
    assert states == {"bad": "open", "good": "closed"}
    assert {(labels["model"], labels["outcome"]) for labels, _ in found["llm.calls"]} == {
        ("bad", "failed"),
        ("good", "completed"),
    }


async def test_the_timeline_tells_the_switch(routed: WorkerFactory, backend: Backend) -> None:
    """One line for the call that failed, one for where it went, one for the answer."""
    async with routed({"main": [failing("bad", "overloaded"), scripted("good", {"text": "yes"})]}) as (fleet, _):
        result, _ = await ended(await fleet.submit("hi"))
    rows = timeline(await read_journal(backend.state, result.task_id), result)
    assert [(text(row[2]), text(row[6])) for row in rows] == [
        ("model", "scripted/bad: failed: bad is overloaded"),
        ("switch", "scripted/good after scripted/bad: overloaded"),
        ("model", "good"),
        ("answered", ""),
    ]


def text(cell: Any) -> str:
    """What a cell shows."""
    return cell.text if isinstance(cell, Cell) else str(cell)
