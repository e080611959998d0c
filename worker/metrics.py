"""What a worker counts: counters, gauges and histograms in plain Python, read by Prometheus and by OTLP.

Counting costs a fraction of a microsecond and never waits: a caller takes a handle for its labels once (`agent`,
`model`, `tool`) and calls its methods. Times are seconds. `worker/metric_families.py` gives it all names.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from queue_backends import TokenUsage
from worker.loop_policy.figures import Figures
from worker.routing.routing_metrics import RoutingMetrics

if TYPE_CHECKING:
    from worker.queue_gauges import QueueGauges

PREFIXES = ("shoal", "arkonis", "kubeswarm")

TASK_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
CALL_BUCKETS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""As the GenAI semantic conventions have it for `gen_ai.client.operation.duration`."""
TOKEN_BUCKETS = tuple(4.0**power for power in range(14))
"""As the GenAI semantic conventions have it for `gen_ai.client.token.usage`: 1, 4, 16, … 67108864."""
BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)

OTHER = "(other)"
"""Stands for label values beyond `MAX_HANDLES` combinations, so that no caller can make the page grow without end."""
MAX_HANDLES = 1000

Labels: TypeAlias = tuple[tuple[str, str], ...]


class Histogram:
    """How often a value fell into each of fixed ranges, and the sum of all values."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value; a bound belongs to the range below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)


class ModelMetrics:
    """Calls to one model by one agent."""

    __slots__ = ("calls", "duration_s", "first_chunk_s", "input_tokens", "labels", "output_tokens")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.calls: dict[str, int] = {}
        self.duration_s = Histogram(CALL_BUCKETS_S)
        self.first_chunk_s = Histogram(CALL_BUCKETS_S)
        self.input_tokens = Histogram(TOKEN_BUCKETS)
        self.output_tokens = Histogram(TOKEN_BUCKETS)

    def called(
        self, duration_s: float, usage: TokenUsage, *, outcome: str = "completed", first_chunk_s: float | None = None
    ) -> None:
        """Count one model call that ended. `outcome` is a `CallOutcome`'s value."""
        self.calls[outcome] = self.calls.get(outcome, 0) + 1
        duration = self.duration_s
        duration.counts[bisect_left(CALL_BUCKETS_S, duration_s)] += 1
        duration.sum += duration_s
        if tokens := usage.input_tokens:
            self.input_tokens.observe(tokens)
        if tokens := usage.output_tokens:
            self.output_tokens.observe(tokens)
        if first_chunk_s is not None:
            self.first_chunk_s.observe(first_chunk_s)


class ToolMetrics:
    """Calls to one tool by one agent."""

    __slots__ = ("duration_s", "errors", "labels")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.duration_s = Histogram(CALL_BUCKETS_S)
        self.errors = 0

    def called(self, duration_s: float, *, is_error: bool = False) -> None:
        """Count one tool call that ended."""
        self.duration_s.observe(duration_s)
        if is_error:
            self.errors += 1


class AgentMetrics:
    """Tasks of one agent, and the handles for its models and tools."""

    __slots__ = ("_metrics", "_models", "completed", "duration_s", "failed", "labels", "queue_wait_s", "started")

    def __init__(self, metrics: Metrics, labels: Labels) -> None:
        self._metrics = metrics
        self._models: dict[tuple[str, str], ModelMetrics] = {}
        self.labels = labels
        self.started = 0
        self.completed = 0
        self.failed = 0
        self.duration_s = Histogram(TASK_BUCKETS_S)
        self.queue_wait_s = Histogram(TASK_BUCKETS_S)

    def task_started(self, queue_wait_s: float | None = None) -> None:
        """Count a task whose run begins; the wait is from `enqueued_at`, None if that cannot be read."""
        self.started += 1
        if queue_wait_s is not None:
            self.queue_wait_s.observe(queue_wait_s if queue_wait_s > 0 else 0.0)

    def task_ended(self, duration_s: float, *, ok: bool) -> None:
        """Count a run that ended, in success or not."""
        if ok:
            self.completed += 1
        else:
            self.failed += 1
        self.duration_s.observe(duration_s)

    def model(self, provider: str, model: str) -> ModelMetrics:
        """The handle for one model; the same one every time. Keep it where calls are frequent."""
        found = self._models.get((provider, model))
        if found is None:
            found = self._metrics.model_of(self, provider, model)
            if len(self._models) < MAX_HANDLES:
                self._models[provider, model] = found
        return found

    def tool(self, name: str, kind: str) -> ToolMetrics:
        """The handle for one tool; `kind` is `python`, `webhook`, `mcp` or `builtin`."""
        return self._metrics.tool_of(self, name, kind)


class BudgetMetrics:
    """What one budget led to. The fields are added to directly."""

    __slots__ = ("labels", "refused", "warned")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.refused = 0
        """Calls refused because the limit was reached."""
        self.warned = 0
        """Soft limits, and limits, that were crossed."""


class RateLimitMetrics:
    """How calls fared under one rate limit. The fields are added to directly."""

    __slots__ = ("labels", "postponed", "refused", "shares", "waited_s")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.waited_s = Histogram(CALL_BUCKETS_S)
        """Of calls that could not be sent at once."""
        self.postponed = 0
        """Calls for whose room the task gave its slot back."""
        self.refused = 0
        """Calls that the provider refused because of its limits (429)."""
        self.shares: dict[str, float] = {}
        """Kind (`requests`, `tokens`, …, `concurrent`) -> share of the limit used in the last minute, by the fleet, in
        the account seen last."""


class WorkerMetrics:
    """What concerns the process, not an agent. The fields are added to directly."""

    __slots__ = (
        "chunks_published",
        "commit_batch",
        "dead",
        "lease_lost",
        "loop_blocked_s",
        "postponed",
        "pulled",
        "retried",
        "running",
        "silent_s",
        "slots",
    )

    def __init__(self) -> None:
        self.running = 0
        """Tasks in hand now."""
        self.slots = 0
        """How many tasks may run at once."""
        self.pulled = 0
        self.lease_lost = 0
        self.loop_blocked_s = 0.0
        """How long the event loop was held up in all, in spells that were long enough to be reported."""
        self.retried = 0
        self.postponed = 0
        self.dead = 0
        self.chunks_published = 0
        self.commit_batch = Histogram(BATCH_BUCKETS)
        """Outcomes per commit."""
        self.silent_s: Callable[[], float] | None = None
        """How long the worker could have pulled and the queue has not answered, not even with nothing; 0 while it is
        full or draining. None where nobody pulls."""


class Metrics:
    """All figures of one worker process. Not for several threads at once; reading from another thread is fine."""

    __slots__ = (
        "_agents",
        "_budgets",
        "_models",
        "_namespace",
        "_rate_limits",
        "_tools",
        "loop_policy",
        "prefix",
        "queue",
        "routing",
        "worker",
    )

    def __init__(self, *, prefix: str = "shoal", namespace: str = "") -> None:
        if prefix not in PREFIXES:
            raise ValueError(f"metrics prefix {prefix!r} is not known: use one of {', '.join(PREFIXES)}")
        self.prefix = prefix
        self.worker = WorkerMetrics()
        self.queue: QueueGauges | None = None
        """The queue's figures, which are not this process' alone; None: they are not shown."""
        self._namespace = namespace
        self._agents: dict[tuple[str, str], AgentMetrics] = {}
        self._models: dict[tuple[Labels, str, str], ModelMetrics] = {}
        self._tools: dict[tuple[Labels, str, str], ToolMetrics] = {}
        self._budgets: dict[str, BudgetMetrics] = {}
        self._rate_limits: dict[str, RateLimitMetrics] = {}
        self.routing = RoutingMetrics()
        self.loop_policy = Figures()

    def agent(self, name: str, role: str = "") -> AgentMetrics:
        """The handle for one agent in one role; the same one every time."""
        found = self._agents.get((name, role))
        if found is None:
            if len(self._agents) >= MAX_HANDLES and name != OTHER:
                return self.agent(OTHER)
            labels = (("namespace", self._namespace), ("agent", name), ("role", role))
            found = self._agents[name, role] = AgentMetrics(self, labels)
        return found

    def model_of(self, agent: AgentMetrics, provider: str, model: str) -> ModelMetrics:
        """As `AgentMetrics.model`."""
        found = self._models.get((agent.labels, provider, model))
        if found is None:
            if len(self._models) >= MAX_HANDLES and model != OTHER:
                return self.model_of(self.agent(OTHER), OTHER, OTHER)
            labels = (*agent.labels, ("provider", provider), ("model", model))
            found = self._models[agent.labels, provider, model] = ModelMetrics(labels)
        return found

    def tool_of(self, agent: AgentMetrics, name: str, kind: str) -> ToolMetrics:
        """As `AgentMetrics.tool`."""
        found = self._tools.get((agent.labels, name, kind))
        if found is None:
            if len(self._tools) >= MAX_HANDLES and name != OTHER:
                return self.tool_of(self.agent(OTHER), OTHER, OTHER)
            labels = (*agent.labels, ("tool_name", name), ("tool_type", kind))
            found = self._tools[agent.labels, name, kind] = ToolMetrics(labels)
        return found

    def budget(self, name: str) -> BudgetMetrics:
        """The handle for one budget; the same one every time."""
        found = self._budgets.get(name)
        if found is None:
            if len(self._budgets) >= MAX_HANDLES and name != OTHER:
                return self.budget(OTHER)
            found = self._budgets[name] = BudgetMetrics((("namespace", self._namespace), ("budget", name)))
        return found

    def rate_limit(self, name: str) -> RateLimitMetrics:
        """The handle for one rate limit; the same one every time."""
        found = self._rate_limits.get(name)
        if found is None:
            if len(self._rate_limits) >= MAX_HANDLES and name != OTHER:
                return self.rate_limit(OTHER)
            found = self._rate_limits[name] = RateLimitMetrics((("namespace", self._namespace), ("limit", name)))
        return found

    def rate_limits(self) -> list[RateLimitMetrics]:
        """All handles for rate limits that were ever taken."""
        return list(self._rate_limits.values())

    def budgets(self) -> list[BudgetMetrics]:
        """All handles for budgets that were ever taken."""
        return list(self._budgets.values())

    def agents(self) -> list[AgentMetrics]:
        """All handles for agents that were ever taken."""
        return list(self._agents.values())

    def models(self) -> list[ModelMetrics]:
        """All handles for models that were ever taken."""
        return list(self._models.values())

    def tools(self) -> list[ToolMetrics]:
        """All handles for tools that were ever taken."""
        return list(self._tools.values())
