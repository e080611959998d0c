"""The figures of a worker by name, for `worker/prometheus.py` and `worker/otlp_metrics.py` to write in their forms.

Names are ark's, with a prefix of choice: the family `task.started` is `shoal_task_started_total` on the metrics page
and `shoal.task.started` over OTLP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from worker.metrics import AgentMetrics, Histogram, Labels, Metrics, ModelMetrics, RateLimitMetrics, ToolMetrics


class Sample(Struct, frozen=True):
    """One value of a family with its labels; a histogram is its own value."""

    labels: Labels
    value: float | Histogram


class Family(Struct, frozen=True, kw_only=True):
    """All samples of one metric. `name` is dotted and without prefix, as ark writes it: `task.started`."""

    name: str
    kind: str
    """`counter`, `gauge` or `histogram`."""
    help: str
    samples: Sequence[Sample]
    unit: str = ""
    """`seconds`, or empty for a number of things."""


def families(metrics: Metrics) -> list[Family]:
    """Everything, as it stands now. Histograms are live, not copies."""
    return [
        *_task_families(metrics.agents()),
        *_model_families(metrics.models()),
        *_tool_families(metrics.tools()),
        *_worker_families(metrics),
        *_queue_families(metrics),
        *_budget_families(metrics),
        *_rate_limit_families(metrics.rate_limits()),
        *_route_families(metrics),
        *_loop_policy_families(metrics),
    ]


def _worker_families(metrics: Metrics) -> list[Family]:
    worker = metrics.worker
    found = [
        _one("worker.running", "gauge", "Tasks in hand.", worker.running),
        _one("worker.slots", "gauge", "Tasks that may run at once.", worker.slots),
        _one("worker.pulled", "counter", "Tasks received from the queue.", worker.pulled),
        _one("worker.lease_lost", "counter", "Runs stopped because their lease was lost.", worker.lease_lost),
        _one("worker.retried", "counter", "Runs that failed and will be tried again.", worker.retried),
        _one("worker.postponed", "counter", "Runs that gave their slot back to wait.", worker.postponed),
        _one("worker.dead", "counter", "Tasks given up for good.", worker.dead),
        _one("worker.chunks_published", "counter", "Chunks written to the stream.", worker.chunks_published),
        _one("worker.commit_batch", "histogram", "Outcomes written in one commit.", worker.commit_batch),
    ]
    text = "Time in which the event loop was held up."
    found.append(_one("worker.loop_blocked", "counter", text, worker.loop_blocked_s, unit="seconds"))
    if worker.silent_s is not None:
        text = "Time since the queue last answered, as far as the worker could have asked."
        found.append(_one("worker.last_pull_age", "gauge", text, worker.silent_s(), unit="seconds"))
    return found


def _queue_families(metrics: Metrics) -> list[Family]:
    """The fleet's figures, as one worker has just seen them; none if the queue does not answer."""
    if metrics.queue is None or (stats := metrics.queue.latest()) is None:
        return []
    labels = (("queue", metrics.queue.name),)

    def gauge(name: str, text: str, value: float, *, unit: str = "") -> Family:
        return Family(name=name, kind="gauge", help=text, samples=[Sample(labels, value)], unit=unit)

    found = [
        gauge("queue.ready", "Tasks of the queue that wait for a worker.", stats.ready),
        gauge("queue.running", "Tasks of the queue that some worker has.", stats.running),
        gauge("queue.delayed", "Tasks of the queue that are not due yet.", stats.delayed),
        gauge("queue.dead", "Dead letters of the queue.", stats.dead),
        gauge("queue.paused", "1 while nothing of the queue is delivered.", stats.paused),
    ]
    age_s = stats.oldest_ready_age_s if stats.ready else 0.0
    if age_s is not None:
        text = "Time the longest waiting task has been ready; 0 if none waits."
        found.append(gauge("queue.oldest_ready_age", text, age_s, unit="seconds"))
    return found


def _budget_families(metrics: Metrics) -> list[Family]:
    budgets = metrics.budgets()
    if not budgets:
        return []
    refused = [Sample(budget.labels, budget.refused) for budget in budgets]
    warned = [Sample(budget.labels, budget.warned) for budget in budgets]
    return [
        Family(name="budget.refused", kind="counter", help="Model calls a budget did not allow.", samples=refused),
        Family(name="budget.warned", kind="counter", help="Soft limits and limits crossed.", samples=warned),
    ]


def _route_families(metrics: Metrics) -> list[Family]:
    """Nothing as long as no call took a route."""
    routing, circuits = metrics.routing, metrics.routing.circuits()
    if not (circuits or routing.failovers or routing.hedges):
        return []
    failovers = [
        Sample((("route", route), ("from", before), ("target", target), ("reason", reason)), count)
        for (route, before, target, reason), count in list(routing.failovers.items())
    ]
    hedges = [
        Sample((("route", route), ("target", target), ("outcome", outcome)), count)
        for (route, target, outcome), count in list(routing.hedges.items())
    ]
    states = [
        Sample((("provider", provider), ("model", model), ("state", state)), 1.0)
        for provider, model, state in dict.fromkeys(circuits)
    ]
    return [
        Family(name="route.failovers", kind="counter", help="Calls that went to another target.", samples=failovers),
        Family(name="route.hedges", kind="counter", help="Second calls beside a slow one.", samples=hedges),
        Family(name="route.circuit", kind="gauge", help="1 for the state of a target's circuit.", samples=states),
    ]


def _loop_policy_families(metrics: Metrics) -> list[Family]:
    """Nothing as long as no run had a loop policy that did anything."""
    done = [Sample((("event", what),), count) for what, count in list(metrics.loop_policy.done.items())]
    failures = [Sample((("part", part),), count) for part, count in list(metrics.loop_policy.failures.items())]
    found = []
    if done:
        text = "What loop policies did around tool calls."
        found.append(Family(name="loop_policy.events", kind="counter", help=text, samples=done))
    if failures:
        text = "Parts of loop policies that runs went on without."
        found.append(Family(name="loop_policy.failures", kind="counter", help=text, samples=failures))
    return found


def _rate_limit_families(limits: Sequence[RateLimitMetrics]) -> list[Family]:
    def family(name: str, kind: str, text: str, value: Callable[[RateLimitMetrics], float | Histogram]) -> Family:
        unit = "seconds" if kind == "histogram" else ""
        return Family(
            name=name, kind=kind, help=text, samples=[Sample(each.labels, value(each)) for each in limits], unit=unit
        )

    if not limits:
        return []
    shares = [
        Sample((*each.labels, ("kind", kind)), share) for each in limits for kind, share in list(each.shares.items())
    ]
    return [
        family("rate_limit.wait", "histogram", "Time calls had to wait for room.", lambda each: each.waited_s),
        family("rate_limit.postponed", "counter", "Calls whose task gave its slot back.", lambda each: each.postponed),
        family("rate_limit.refused", "counter", "Calls the provider refused (429).", lambda each: each.refused),
        Family(name="rate_limit.used", kind="gauge", help="Share of the limit used in a minute.", samples=shares),
    ]


def _one(name: str, kind: str, text: str, value: float | Histogram, *, unit: str = "") -> Family:
    return Family(name=name, kind=kind, help=text, samples=[Sample((), value)], unit=unit)


def _task_families(agents: Sequence[AgentMetrics]) -> list[Family]:
    def family(name: str, kind: str, text: str, value: Callable[[AgentMetrics], float | Histogram]) -> Family:
        unit = "seconds" if kind == "histogram" else ""
        samples = [Sample(agent.labels, value(agent)) for agent in agents]
        return Family(name=name, kind=kind, help=text, samples=samples, unit=unit)

    return [
        family("task.started", "counter", "Task runs begun.", lambda agent: agent.started),
        family("task.completed", "counter", "Task runs that succeeded.", lambda agent: agent.completed),
        family("task.failed", "counter", "Task runs that failed.", lambda agent: agent.failed),
        family("task.duration", "histogram", "Time from start to end of a run.", lambda agent: agent.duration_s),
        family("task.queue_wait", "histogram", "Time from submit to start.", lambda agent: agent.queue_wait_s),
    ]


def _model_families(models: Sequence[ModelMetrics]) -> list[Family]:
    def histogram(name: str, text: str, value: Callable[[ModelMetrics], Histogram]) -> Family:
        samples = [Sample(model.labels, value(model)) for model in models]
        return Family(name=name, kind="histogram", help=text, samples=samples, unit="seconds")

    def counter(name: str, text: str, value: Callable[[ModelMetrics], float]) -> Family:
        samples = [Sample(model.labels, value(model)) for model in models]
        return Family(name=name, kind="counter", help=text, samples=samples)

    calls = [
        Sample((*model.labels, ("outcome", outcome)), count)
        for model in models
        for outcome, count in list(model.calls.items())
    ]
    return [
        Family(name="llm.calls", kind="counter", help="Model calls by outcome.", samples=calls),
        histogram("llm.call.duration", "Time of a model call.", lambda model: model.duration_s),
        histogram("llm.call.first_chunk", "Time to the first chunk of a call.", lambda model: model.first_chunk_s),
        counter("llm.tokens.input", "Input tokens, cached ones included.", lambda model: model.input_tokens.sum),
        counter("llm.tokens.output", "Output tokens, reasoning included.", lambda model: model.output_tokens.sum),
    ]


def _tool_families(tools: Sequence[ToolMetrics]) -> list[Family]:
    durations = [Sample(tool.labels, tool.duration_s) for tool in tools]
    errors = [Sample(tool.labels, tool.errors) for tool in tools]
    return [
        Family(
            name="tool.call.duration", kind="histogram", help="Time of a tool call.", samples=durations, unit="seconds"
        ),
        Family(name="tool.call.errors", kind="counter", help="Tool calls that failed.", samples=errors),
    ]
