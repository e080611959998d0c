"""Traces: one from submit to result, across the queue, over model calls and tool calls, through every retry.

On when `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` (or, for metrics alone,
`OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`) is set, unless `OTEL_SDK_DISABLED=true`; everything else about the export follows
the standard OTEL_* variables. Off, nothing of OpenTelemetry is imported and each span is one shared object that does
nothing. Names and attributes follow the GenAI semantic conventions, beside those of ark's runtime (`task.id`,
`task.prompt_len`, `namespace`, `agent`, `role`, `llm.*`, `tool.*`). No prompt and no answer is ever put into a span.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING

import structlog

from queue_backends import Task
from worker.metrics import Metrics
from worker.semconv import provider_name
from worker.spans import OFF, LiveSpan, Span
from worker.trace_context import inject, parent_of

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import Tracer

    from worker.otlp_metrics import OtlpMetrics

__all__ = ["OFF", "Span", "Telemetry", "inject"]

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"

_log = structlog.get_logger(__name__)


class Telemetry:
    """Opens spans, and sends them and the metrics to the OTLP endpoint if there is one."""

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        otlp_metrics: OtlpMetrics | None = None,
        metrics_prefix: str = "shoal",
        namespace: str = "",
    ) -> None:
        self._provider = tracer_provider
        self._otlp_metrics = otlp_metrics
        self._namespace = namespace
        self._tracer: Tracer | None = tracer_provider.get_tracer(metrics_prefix) if tracer_provider else None

    @classmethod
    def from_environment(
        cls,
        *,
        service_name: str = "shoal-worker",
        metrics_prefix: str = "shoal",
        namespace: str = "",
        metrics: Metrics | None = None,
    ) -> Telemetry:
        """As the OTEL_* variables say. With `metrics`, its figures are exported too.

        `metrics_prefix` is the name of the instrumentation scope; the figures carry the prefix of `metrics` itself.
        """
        wants_traces, wants_metrics = _is_wanted("TRACES"), _is_wanted("METRICS") and metrics is not None
        if not (wants_traces or wants_metrics):
            return cls(metrics_prefix=metrics_prefix, namespace=namespace)
        _warn_of_other_protocols()
        try:
            resource = _resource(service_name)
            provider = _tracer_provider(resource) if wants_traces else None
            exporter = _otlp_metrics(metrics, resource) if wants_metrics and metrics is not None else None
        except ImportError as error:
            _log.warning(
                "an OTLP endpoint is set, but the exporter is not installed: nothing is exported until you install "
                "shoal[otlp]",
                error=str(error),
            )
            return cls(metrics_prefix=metrics_prefix, namespace=namespace)
        return cls(tracer_provider=provider, otlp_metrics=exporter, metrics_prefix=metrics_prefix, namespace=namespace)

    @property
    def enabled(self) -> bool:
        """Whether spans go anywhere."""
        return self._tracer is not None

    def inject(self, task: Task) -> Task:
        """The task, joined to the caller's current span if there is one; one that has a trace already keeps it."""
        return inject(task)

    def task(
        self, task: Task, *, agent: str = "", role: str = "", team: str = "", queue_wait_s: float | None = None
    ) -> Span:
        """The whole run of one delivery, as a child of the span that submitted the task."""
        if self._tracer is None:
            return OFF
        agent = agent or task.agent
        return self._start(
            f"invoke_agent {agent}".rstrip(),
            "CONSUMER",
            {
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.agent.name": agent or None,
                "gen_ai.conversation.id": task.session_id or None,
                "task.id": task.id,
                "task.prompt_len": len(task.prompt.encode()),
                "namespace": self._namespace,
                "agent": agent,
                "role": role,
                "team": team or None,
                "tenant": task.tenant or None,
                "task.attempt": task.attempt,
                "task.queue_wait_ms": None if queue_wait_s is None else round(queue_wait_s * 1000),
            },
            ark_prefix="task",
            parent=parent_of(task),
        )

    def model_call(self, *, provider: str, model: str, turn: int = 0, attempt: int = 0, max_tokens: int = 0) -> Span:
        """One model call. Tell it the answer's model as `gen_ai.response.model`, and its usage."""
        if self._tracer is None:
            return OFF
        return self._start(
            f"chat {model}".rstrip(),
            "CLIENT",
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": provider_name(provider),
                "gen_ai.request.model": model,
                "gen_ai.request.max_tokens": max_tokens or None,
                "gen_ai.request.stream": True,
                "llm.provider": provider,
                "llm.model": model,
                "turn": turn,
                "turn.attempt": attempt,
            },
            ark_prefix="llm",
        )

    def tool_call(self, *, name: str, kind: str = "", call_id: str = "") -> Span:
        """One tool call; `kind` is `python`, `webhook`, `mcp` or `builtin`."""
        if self._tracer is None:
            return OFF
        return self._start(
            f"execute_tool {name}",
            "INTERNAL",
            {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": name,
                "gen_ai.tool.type": "function",
                "gen_ai.tool.call.id": call_id or None,
                "tool.name": name,
                "tool.type": kind or None,
            },
            ark_prefix="tool",
        )

    def advice(self, *, advisor: str, tool: str) -> Span:
        """An advisor is asked. Names are kubeswarm's."""
        if self._tracer is None:
            return OFF
        named: dict[str, str | bool | int | None] = {
            "kubeswarm.advisor.name": advisor,
            "kubeswarm.advisor.tool_name": tool,
        }
        return self._start("advisor.consult", "INTERNAL", named, ark_prefix="advisor")

    async def shutdown(self, timeout_s: float = 5.0) -> None:
        """Send what is left and stop, within `timeout_s`; what an endpoint does not take by then is dropped."""
        if self._provider is None and self._otlp_metrics is None:
            return
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def run() -> None:
            if self._otlp_metrics is not None:
                self._otlp_metrics.stop(timeout_s / 2)
            if self._provider is not None:
                self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

        # a daemon thread of its own, because the loop's executor is joined at exit whatever hangs in it
        threading.Thread(target=run, name="otlp-shutdown", daemon=True).start()
        try:
            async with asyncio.timeout(timeout_s):
                await done.wait()
        except TimeoutError:
            _log.warning("the OTLP endpoint did not take the last spans and metrics in time", timeout_s=timeout_s)

    def _start(
        self,
        name: str,
        kind: str,
        attributes: dict[str, str | bool | int | None],
        *,
        ark_prefix: str,
        parent: Context | None = None,
    ) -> Span:
        from opentelemetry.trace import SpanKind

        assert self._tracer is not None  # noqa: S101 - every caller has checked; mypy cannot see that
        known = {name: value for name, value in attributes.items() if value is not None}
        span = self._tracer.start_span(name, context=parent, kind=SpanKind[kind], attributes=known)
        return LiveSpan(span, parent, ark_prefix)


def _is_wanted(signal: str) -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if os.environ.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() == "none":
        return False
    return bool(os.environ.get(_ENDPOINT) or os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"))


def _warn_of_other_protocols() -> None:
    for signal in ("", "TRACES_", "METRICS_"):
        name = f"OTEL_EXPORTER_OTLP_{signal}PROTOCOL"
        if (protocol := os.environ.get(name, "").strip()) not in {"", "http/protobuf"}:
            _log.warning(
                "only OTLP over http/protobuf is spoken: point the endpoint to the collector's HTTP port",
                variable=name,
                value=protocol,
            )


def _resource(service_name: str) -> Resource:
    from opentelemetry.sdk.resources import Resource

    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create({} if named else {"service.name": service_name})


def span_processor(service_name: str) -> tuple[SpanProcessor, Resource] | None:
    """What sends spans that somebody else has made, and whose they are; None if traces go nowhere."""
    if not _is_wanted("TRACES"):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:  # whoever has tasks to trace says so
        return None
    return BatchSpanProcessor(OTLPSpanExporter()), _resource(service_name)


def _tracer_provider(resource: Resource) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # not `shutdown_on_exit`: that waits up to 30 s for an endpoint that hangs
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _otlp_metrics(metrics: Metrics, resource: Resource) -> OtlpMetrics:
    from worker.otlp_metrics import OtlpMetrics

    return OtlpMetrics(metrics, resource)
