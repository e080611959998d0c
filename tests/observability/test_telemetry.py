"""One trace from submit to result, sent to a real OTLP receiver; and nothing at all when tracing is off."""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings
from structlog.testing import capture_logs

from queue_backends import QueueStats, Task, TokenUsage
from queue_backends.messages import task_from_entry, task_to_entry
from worker.metrics import Metrics
from worker.queue_gauges import QueueGauges
from worker.telemetry import OFF, Telemetry, inject

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOW = "2026-11-21T04:00:00Z"
DEADLINE_S = 20.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No OTEL_* variable of the machine reaches a test."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


class Collector:
    """Keeps what a receiver gets, so that it can be asked for in any order, before or after it came."""

    def __init__(self) -> None:
        self._spans: list[Any] = []
        self._metrics: list[Any] = []
        self._changed = asyncio.Condition()

    async def keep_spans(self, stream: AsyncIterator[Any]) -> None:
        """Take every span of the stream."""
        async for item in stream:
            await self._keep(self._spans, item)

    async def keep_metrics(self, stream: AsyncIterator[Any]) -> None:
        """Take every metric of the stream."""
        async for item in stream:
            await self._keep(self._metrics, item)

    async def span(self, name: str) -> Any:
        """The span of this name."""
        return await self._first(self._spans, name)

    async def metric(self, name: str) -> Any:
        """The metric of this name."""
        return await self._first(self._metrics, name)

    async def _keep(self, items: list[Any], item: Any) -> None:
        async with self._changed:
            items.append(item)
            self._changed.notify_all()

    async def _first(self, items: list[Any], name: str) -> Any:
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(lambda: any(item.name == name for item in items))
        return next(item for item in items if item.name == name)


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """A running OTLP receiver, with the environment pointing to it."""
    port = _free_port()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    kept = Collector()
    async with (
        OtelTapHttpProtobufReceiver(OtelTapHttpProtobufReceiverSettings(http_port=port)) as receiver,
        asyncio.TaskGroup() as group,
    ):
        tasks = [
            group.create_task(kept.keep_spans(receiver.stream_traces())),
            group.create_task(kept.keep_metrics(receiver.stream_metrics())),
        ]
        yield kept
        for task in tasks:
            task.cancel()


def _attributes(span: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


def _run_once(telemetry: Telemetry, task: Task, *, fail: bool = False) -> None:
    """What a worker does with a task, as far as its spans are concerned."""
    with telemetry.task(task, agent="writer", role="author", queue_wait_s=0.25) as run:
        with telemetry.model_call(provider="gemini", model="gemini-2.5-pro", turn=1, max_tokens=100) as call:
            call.set("gen_ai.response.model", "gemini-2.5-pro-002")
            call.usage(TokenUsage(input_tokens=12, output_tokens=3, cache_read_tokens=5))
        with telemetry.tool_call(name="files__read", kind="mcp", call_id="c1") as tool:
            if fail:
                tool.fail(RuntimeError("401 for sk-abcdefgh12345"))
        run.usage(TokenUsage(input_tokens=12, output_tokens=3))


async def test_one_trace_reaches_from_the_submitter_over_the_queue_to_model_and_tools(
    collector: Collector,
) -> None:
    """The run is a child of the submitter's span, model and tool calls are children of the run."""
    telemetry = Telemetry.from_environment(service_name="test-worker", namespace="prod")
    # Given a task submitted inside a span, that crossed the queue as text
    with telemetry.tool_call(name="submit"):
        sent = task_to_entry(telemetry.inject(Task(prompt="a secret question", agent="writer")), enqueued_at=NOW)
    received = task_from_entry("1775-0", sent, attempt=1)
    # When a worker that knows nothing of the submitter runs it
    contextvars.Context().run(_run_once, telemetry, received)
    await telemetry.shutdown()
    # Then all spans are one trace
    submit = await collector.span("execute_tool submit")
    run = await collector.span("invoke_agent writer")
    call = await collector.span("chat gemini-2.5-pro")
    tool = await collector.span("execute_tool files__read")
    assert run.parent_span_id == submit.span_id
    assert call.parent_span_id == tool.parent_span_id == run.span_id
    assert {span.trace_id for span in (submit, run, call, tool)} == {run.trace_id}
    # And they say what happened, in the conventions' names and in ark's, without any content
    assert _attributes(run) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "writer",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
        "task.id": "1775-0",
        "task.input_tokens": 12,
        "task.output_tokens": 3,
        "task.prompt_len": len("a secret question"),
        "task.attempt": 1,
        "task.queue_wait_ms": 250,
        "namespace": "prod",
        "agent": "writer",
        "role": "author",
    }
    assert _attributes(call) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.request.model": "gemini-2.5-pro",
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "gemini-2.5-pro-002",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 5,
        "llm.provider": "gemini",
        "llm.model": "gemini-2.5-pro",
        "llm.input_tokens": 12,
        "llm.output_tokens": 3,
        "turn": 1,
        "turn.attempt": 0,
    }
    assert _attributes(tool)["tool.type"] == "mcp"


async def test_a_task_keeps_the_trace_it_came_with(collector: Collector) -> None:
    """A trace context that ark's operator wrote is the parent, and is not overwritten by ours."""
    telemetry = Telemetry.from_environment()
    task = Task(id="1", prompt="x", agent="writer", traceparent=TRACEPARENT, tracestate="vendor=1")
    with telemetry.tool_call(name="outer"):
        assert telemetry.inject(task) is task
        _run_once(telemetry, task)
    await telemetry.shutdown()
    run = await collector.span("invoke_agent writer")
    assert run.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert run.parent_span_id.hex() == "00f067aa0ba902b7"
    assert run.trace_state == "vendor=1"


async def test_baggage_travels_with_the_task_and_on_to_its_subtasks(collector: Collector) -> None:
    """What a caller attached to its context is still there when a run submits a task of its own."""
    telemetry = Telemetry.from_environment()
    with telemetry.task(Task(id="1", prompt="x", traceparent=TRACEPARENT, baggage="customer=42")) as run:
        assert run is not OFF
        subtask = telemetry.inject(Task(prompt="y"))
    assert subtask.traceparent.startswith(TRACEPARENT[:35])
    assert subtask.baggage == "customer=42"
    await telemetry.shutdown()


@pytest.mark.parametrize("traceparent", ["", "nonsense", "00-0000-11-zz"])
async def test_a_task_without_a_readable_trace_begins_one(collector: Collector, traceparent: str) -> None:
    """Garbage in the entry does not stop the run; it gets a trace of its own."""
    telemetry = Telemetry.from_environment()
    with telemetry.tool_call(name="unrelated"):
        _run_once(telemetry, Task(id="1", prompt="x", traceparent=traceparent))
    await telemetry.shutdown()
    run = await collector.span("invoke_agent writer")
    unrelated = await collector.span("execute_tool unrelated")
    assert run.parent_span_id == b""
    assert run.trace_id != unrelated.trace_id


async def test_failures_and_cancellations_are_marked_without_secrets(collector: Collector) -> None:
    """A failed step has an error status, a type and a masked message; a cancelled one says so."""
    telemetry = Telemetry.from_environment()
    _run_once(telemetry, Task(id="1", prompt="x"), fail=True)
    with pytest.raises(asyncio.CancelledError), telemetry.task(Task(id="2", prompt="x"), agent="stopped"):
        raise asyncio.CancelledError
    with pytest.raises(ValueError, match="bad"), telemetry.model_call(provider="p", model="broken"):
        raise ValueError("bad")
    await telemetry.shutdown()
    tool = await collector.span("execute_tool files__read")
    assert (tool.status.code, tool.status.message) == (2, "401 for [masked]")
    assert [_attributes(event)["exception.message"] for event in tool.events] == ["401 for [masked]"]
    stopped = await collector.span("invoke_agent stopped")
    assert (stopped.status.code, _attributes(stopped)["error.type"], len(stopped.events)) == (2, "cancelled", 0)
    broken = await collector.span("chat broken")
    assert _attributes(broken)["error.type"] == "ValueError"


async def test_spans_of_concurrent_tasks_do_not_mix(collector: Collector) -> None:
    """Each asyncio task has its own current span, so tool calls find the run they belong to."""
    telemetry = Telemetry.from_environment()
    everyone_started = asyncio.Barrier(3)

    async def run(name: str) -> None:
        with telemetry.task(Task(id=name, prompt="x"), agent=name):
            await everyone_started.wait()
            with telemetry.tool_call(name=name):
                await everyone_started.wait()

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        for name in ("a", "b", "c"):
            group.create_task(run(name))
    await telemetry.shutdown()
    for name in ("a", "b", "c"):
        parent = await collector.span(f"invoke_agent {name}")
        assert (await collector.span(f"execute_tool {name}")).parent_span_id == parent.span_id


async def test_metrics_go_out_with_arks_and_the_conventions_names(collector: Collector) -> None:
    """The figures of /metrics leave over OTLP when the worker stops: ark's in milliseconds, GenAI's in seconds."""
    metrics = Metrics(prefix="kubeswarm", namespace="prod")
    telemetry = Telemetry.from_environment(metrics=metrics, metrics_prefix="kubeswarm")
    agent = metrics.agent("writer", "author")
    agent.task_started(0.2)
    agent.model("gemini", "g-1").called(0.5, TokenUsage(input_tokens=100, output_tokens=7))
    agent.task_ended(1.5, ok=True)
    metrics.worker.running = 2
    await telemetry.shutdown()

    started = await collector.metric("kubeswarm.task.started")
    assert [point.as_double for point in started.sum.data_points] == [1.0]
    assert started.sum.is_monotonic
    duration = await collector.metric("kubeswarm.task.duration")
    assert (duration.unit, duration.histogram.data_points[0].sum) == ("ms", 1500.0)
    assert (await collector.metric("kubeswarm.worker.running")).gauge.data_points[0].as_double == 2.0
    operation = await collector.metric("gen_ai.client.operation.duration")
    assert (operation.unit, operation.histogram.data_points[0].sum) == ("s", 0.5)
    assert _attributes(operation.histogram.data_points[0])["gen_ai.provider.name"] == "gcp.gemini"
    tokens = await collector.metric("gen_ai.client.token.usage")
    assert {
        _attributes(point)["gen_ai.token.type"]: (point.count, point.sum) for point in tokens.histogram.data_points
    } == {"input": (1, 100.0), "output": (1, 7.0)}


async def test_the_queues_figures_go_out_too(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter's thread asks for them in the worker's loop; times are milliseconds as all others."""
    monkeypatch.setattr("worker.queue_gauges.LIMIT_S", float(DEADLINE_S))

    async def stats() -> QueueStats:
        return QueueStats(ready=7, running=3, oldest_ready_age_s=1.5)

    metrics = Metrics()
    metrics.queue = QueueGauges(stats, "agents")
    telemetry = Telemetry.from_environment(metrics=metrics)
    await telemetry.shutdown()

    (point,) = (await collector.metric("shoal.queue.ready")).gauge.data_points
    assert (point.as_double, _attributes(point)) == (7.0, {"queue": "agents"})
    age = await collector.metric("shoal.queue.oldest_ready_age")
    assert (age.unit, age.gauge.data_points[0].as_double) == ("ms", 1500.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
)
async def test_the_standard_switches_turn_it_off(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """An endpoint alone does not force tracing on."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    telemetry = Telemetry.from_environment()
    assert not telemetry.enabled
    assert telemetry.task(Task(prompt="x")) is OFF
    assert telemetry.model_call(provider="p", model="m") is OFF
    await telemetry.shutdown()


def test_off_nothing_of_opentelemetry_is_imported() -> None:
    """A worker without an endpoint pays neither for the import nor for spans."""
    program = """
import sys
from queue_backends import Task
from worker.metrics import Metrics
from worker.telemetry import Telemetry
telemetry = Telemetry.from_environment(metrics=Metrics())
task = telemetry.inject(Task(prompt="x"))
with telemetry.task(task) as run, telemetry.model_call(provider="p", model="m"), telemetry.tool_call(name="t"):
    run.set("a", 1)
    run.fail("no")
assert task.traceparent == ""
sys.exit(any(name.startswith("opentelemetry") for name in sys.modules))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_task_is_joined_to_a_span_that_the_application_opened() -> None:
    """An engine with its own OpenTelemetry set-up gets its trace continued, although ours is off."""
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("engine")
    with tracer.start_as_current_span("request") as span:
        task = inject(Task(prompt="x"))
    assert f"{span.get_span_context().trace_id:032x}" in task.traceparent
    assert inject(Task(prompt="x")).traceparent == ""


def test_an_endpoint_without_the_exporter_is_one_clear_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker goes on untraced and says which extra is missing."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with capture_logs() as lines:
        telemetry = Telemetry.from_environment(metrics=Metrics())
    assert not telemetry.enabled
    assert ["shoal[otlp]" in line["event"] for line in lines] == [True]


def test_a_protocol_that_is_not_spoken_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint for gRPC would take nothing, so the log tells what to change."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with capture_logs() as lines:
        assert Telemetry.from_environment().enabled
    assert [(line["variable"], line["value"]) for line in lines] == [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]


@pytest.mark.parametrize("is_orderly", [True, False])
def test_an_endpoint_that_hangs_does_not_hang_the_exit(is_orderly: bool) -> None:
    """Shutting down is bounded, and the process ends although an export never returns, after a crash as well."""
    program = """
import asyncio, os, socket
hole = socket.socket(); hole.bind(("127.0.0.1", 0)); hole.listen()
os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{hole.getsockname()[1]}"
os.environ["OTEL_EXPORTER_OTLP_TIMEOUT"] = "3600"
from queue_backends import Task
from worker.metrics import Metrics
from worker.telemetry import Telemetry
async def main():
    telemetry = Telemetry.from_environment(metrics=Metrics())
    with telemetry.task(Task(id="1", prompt="x")):
        pass
    if IS_ORDERLY:
        await telemetry.shutdown(timeout_s=0.2)
asyncio.run(main())
print("left")
""".replace("IS_ORDERLY", str(is_orderly))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=20)
    assert ("did not take the last spans and metrics in time" in done.stdout) is is_orderly
    assert done.stdout.rstrip().endswith("left")


async def test_a_foreign_collector_takes_traces_and_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that shares no code with the exporter reads our spans and figures."""
    found = importlib.util.find_spec("rotel")
    if found is None or found.origin is None:
        pytest.skip("the rotel collector is not installed: pip install rotel")
    port = _free_port()
    command = [str(Path(found.origin).with_name("rotel-agent")), "start", "--exporter", "blackhole"]
    command += ["--otlp-http-endpoint", f"127.0.0.1:{port}", "--otlp-grpc-endpoint", f"127.0.0.1:{_free_port()}"]
    command += ["--debug-log", "traces", "--debug-log", "metrics", "--debug-log-verbosity", "detailed"]
    command += ["--pid-file", str(tmp_path / "pid"), "--log-file", str(tmp_path / "log")]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        await _read_until(process.stdout, lambda text: "Starting Rotel" in text)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        metrics = Metrics()
        telemetry = Telemetry.from_environment(metrics=metrics)
        metrics.agent("writer").model("openai", "gpt-4o").called(0.5, TokenUsage(input_tokens=3))
        _run_once(telemetry, Task(id="1", prompt="x"))
        await telemetry.shutdown()
        wanted = ("invoke_agent writer", "chat gemini-2.5-pro", "gen_ai.client.token.usage", "shoal.llm.call.duration")
        await _read_until(process.stdout, lambda text: all(name in text for name in wanted))
    finally:
        process.kill()
        await process.wait()


async def _read_until(stream: asyncio.StreamReader, is_enough: Callable[[str], bool]) -> None:
    text = ""
    async with asyncio.timeout(DEADLINE_S):
        while not is_enough(text):
            piece = await stream.read(65536)
            assert piece, f"the collector ended early: {text}"
            text += piece.decode(errors="replace")
