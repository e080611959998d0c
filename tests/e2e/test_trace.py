"""One trace from the engine's span to the tool call, across the queue, in a foreign OTLP receiver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from e2e_programs import workers
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanContext
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings

from tests.servers import free_port
from worker.client import connect

LIMIT_S = 60
WANTED = {"invoke_agent", "chat scripted", "execute_tool double"}
TOOLS = "from worker import tool\n@tool\ndef double(n: int) -> int:\n    '''Twice.'''\n    return 2 * n\n"


async def test_one_trace_from_submit_to_result(queue_url: str, tmp_path: Path) -> None:
    """The worker's spans hang together below the span that submitted, and carry usage under standard names."""
    (tmp_path / "tools.py").write_text(TOOLS)
    turns: list[dict[str, Any]] = [
        {"tool_calls": [{"name": "double", "arguments": {"n": 2}}]},
        {"text": "ok", "usage": {"input_tokens": 5, "output_tokens": 1}},
    ]
    settings = {"agent": _scripted(*turns), "python_tools": [str(tmp_path / "tools.py")]}
    engine, spans = await _traced(queue_url, tmp_path, settings, lambda names: set(names) >= WANTED)
    by_name = {span.name: span for span in spans}
    assert {_hex(span.trace_id) for span in spans if span.name in WANTED} == {format(engine.trace_id, "032x")}
    assert _hex(by_name["invoke_agent"].parent_span_id) == format(engine.span_id, "016x")
    run_id = _hex(by_name["invoke_agent"].span_id)
    assert _hex(by_name["execute_tool double"].parent_span_id) == run_id
    assert {_hex(span.parent_span_id) for span in spans if span.name == "chat scripted"} == {run_id}


async def test_a_task_that_is_tried_again_stays_in_its_trace(queue_url: str, tmp_path: Path) -> None:
    """Both attempts are children of the span that submitted, and say which they are, and why the first one failed."""
    turn = {"text": "ok", "fault": {"kind": "overloaded", "attempts": 1}}
    settings = {"agent": _scripted(turn), "retry_base_s": 0.0}
    engine, spans = await _traced(queue_url, tmp_path, settings, lambda names: names.count("invoke_agent") == 2)
    runs = [span for span in spans if span.name == "invoke_agent"]
    assert {_hex(span.trace_id) for span in runs} == {format(engine.trace_id, "032x")}
    assert {_hex(span.parent_span_id) for span in runs} == {format(engine.span_id, "016x")}
    told = [{each.key: each.value.string_value or each.value.int_value for each in span.attributes} for span in runs]
    assert sorted((each["task.attempt"], each.get("error.type", "")) for each in told) == [(0, "Overloaded"), (1, "")]


def _scripted(*turns: dict[str, Any]) -> dict[str, Any]:
    script = {"scenarios": [{"turns": list(turns)}]}
    return {"model": "scripted", "provider": "scripted", "options": {"script": script}}


async def _traced(
    queue_url: str, tmp_path: Path, settings: dict[str, Any], is_complete: Callable[[list[str]], bool]
) -> tuple[SpanContext, list[Any]]:
    """Submit a task inside a span and run it in a worker process; that span, and those that the worker has sent."""
    port = free_port()
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_SCHEDULE_DELAY": "200"}
    tracer = TracerProvider().get_tracer("engine")
    spans: list[Any] = []
    complete = asyncio.Event()

    async with (
        OtelTapHttpProtobufReceiver(OtelTapHttpProtobufReceiverSettings(http_port=port)) as receiver,
        connect(queue_url) as fleet,
    ):

        async def collect() -> None:
            async for span in receiver.stream_traces():
                spans.append(span)
                if is_complete([item.name for item in spans]):
                    complete.set()

        collecting = asyncio.create_task(collect())
        with workers(1, tmp_path, queue_url, settings, environ):
            with tracer.start_as_current_span("engine") as engine:
                handle = await fleet.submit("go")
            assert (await handle.result(LIMIT_S)).output == "ok"
            async with asyncio.timeout(LIMIT_S):
                await complete.wait()
        collecting.cancel()
    return engine.get_span_context(), spans


def _hex(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
