"""One trace for a run: spans of its steps hang below the run's, and those of its tasks below the steps'."""

from __future__ import annotations

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from queue_backends import open_backend
from tests.teams.runs.test_driving import team
from tests.teams.runs.workers import FAIL, Workers
from worker.teams.driver import Driver
from worker.teams.plan import Loop, Step
from worker.teams.run_spans import RunSpans
from worker.teams.runs import Runs

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_steps_and_tasks_hang_below_the_run() -> None:
    """Each iteration is a span of its own; a failed step says why, and so does the run."""
    exporter = InMemorySpanExporter()
    spans = RunSpans(SimpleSpanProcessor(exporter), Resource.create({}))
    plan = team(
        Step(name="a", role="a", loop=Loop(condition="yes", max_iterations=2)),
        Step(name="b", role="b", depends_on=("a",)),
    )
    async with await open_backend("memory://") as backend:
        runs, workers = Runs(backend.state), Workers(backend, lambda call, _: f"{FAIL}no" if call.step == "b" else "x")
        run_id = await runs.start(plan, {}, traceparent=CALLER)
        async with workers.working():
            await Driver(backend, runs, spans=spans).drive(run_id)
        own = await runs.header(await runs.start(plan, {}))
    found = {(span.name, (span.attributes or {}).get("iteration", 0)): span for span in exporter.get_finished_spans()}
    root, first, second, failed = (found[key] for key in (("run team", 0), ("step a", 1), ("step a", 2), ("step b", 1)))
    assert {_trace(span) for span in found.values()} == {CALLER.split("-")[1]}
    assert _parent(root) == CALLER.split("-")[2]
    assert {_parent(span) for span in (first, second, failed)} == {_id(root)}
    assert [task.traceparent.split("-")[2] for task in workers.tasks] == [_id(first), _id(second), _id(failed)]
    assert {task.traceparent.split("-")[1] for task in workers.tasks} == {CALLER.split("-")[1]}
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, f"{FAIL}no")
    assert root.status.status_code is StatusCode.ERROR
    assert first.status.status_code is StatusCode.UNSET
    assert own.traceparent.split("-")[1] != CALLER.split("-")[1]


def _trace(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def _id(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.span_id:016x}"


def _parent(span: ReadableSpan) -> str:
    assert span.parent is not None
    return f"{span.parent.span_id:016x}"
