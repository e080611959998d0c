"""Every figure reaches the metrics page in a form that Prometheus accepts, and labels cannot grow without end."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_backends import TokenUsage
from worker import metrics as metrics_module
from worker.metric_families import families
from worker.metrics import PREFIXES, Histogram, Metrics
from worker.prometheus import render


def _busy(prefix: str = "shoal", *, agent: str = "writer") -> Metrics:
    """A worker that has done one of everything."""
    metrics = Metrics(prefix=prefix, namespace="prod")
    handle = metrics.agent(agent, role="author")
    handle.task_started(queue_wait_s=0.2)
    usage = TokenUsage(input_tokens=100, output_tokens=7)
    handle.model("anthropic", "claude-sonnet-4-5").called(0.5, usage, first_chunk_s=0.1)
    handle.model("anthropic", "claude-sonnet-4-5").called(0.7, TokenUsage(), outcome="cut")
    handle.tool("files__read", "mcp").called(0.05, is_error=True)
    handle.task_ended(1.5, ok=True)
    handle.task_started()
    handle.task_ended(0.1, ok=False)
    worker = metrics.worker
    worker.running, worker.slots, worker.pulled = 3, 100, 17
    worker.lease_lost, worker.retried, worker.dead, worker.chunks_published = 1, 2, 3, 400
    worker.commit_batch.observe(5)
    worker.silent_s = lambda: 2.5
    return metrics


def _lines(page: str) -> set[str]:
    return set(page.splitlines())


def test_everything_that_happened_is_on_the_page() -> None:
    """Counters, gauges and histograms carry ark's names, the namespace and the agent."""
    lines = _lines(render(_busy()))
    labels = 'namespace="prod",agent="writer",role="author"'
    model = f'{labels},provider="anthropic",model="claude-sonnet-4-5"'
    assert {
        f"shoal_task_started_total{{{labels}}} 2",
        f"shoal_task_completed_total{{{labels}}} 1",
        f"shoal_task_failed_total{{{labels}}} 1",
        f'shoal_task_duration_seconds_bucket{{{labels},le="2.5"}} 2',
        f"shoal_task_duration_seconds_sum{{{labels}}} 1.6",
        f"shoal_task_queue_wait_seconds_count{{{labels}}} 1",
        f'shoal_llm_calls_total{{{model},outcome="cut"}} 1',
        f"shoal_llm_call_duration_seconds_count{{{model}}} 2",
        f"shoal_llm_tokens_input_total{{{model}}} 100",
        f"shoal_llm_tokens_output_total{{{model}}} 7",
        f'shoal_tool_call_errors_total{{{labels},tool_name="files__read",tool_type="mcp"}} 1',
        "shoal_worker_running 3",
        "shoal_worker_slots 100",
        "shoal_worker_pulled_total 17",
        "shoal_worker_lease_lost_total 1",
        "shoal_worker_retried_total 2",
        "shoal_worker_dead_total 3",
        "shoal_worker_chunks_published_total 400",
        "shoal_worker_commit_batch_sum 5",
        "shoal_worker_last_pull_age_seconds 2.5",
    } <= lines


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prometheus_own_checker_accepts_the_page(prefix: str) -> None:
    """`promtool check metrics` finds no fault, with odd label values and under every prefix."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH: install Prometheus to run this check")
    page = render(_busy(prefix, agent='odd "name"\nwith \\ and é'))
    check = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    assert (check.returncode, check.stderr) == (0, "")


def test_a_worker_that_did_nothing_has_a_page_too() -> None:
    """Families without a value are left out, and a worker that never pulled has no pull age."""
    page = render(Metrics())
    assert "shoal_worker_pulled_total 0" in page
    assert "task_started" not in page
    assert "last_pull_age" not in page


def test_an_unknown_prefix_is_refused_with_those_there_are() -> None:
    """A typing error in the prefix is said at start-up, not found on a dashboard."""
    with pytest.raises(ValueError, match=r"'shaol'.*shoal, arkonis, kubeswarm"):
        Metrics(prefix="shaol")


def test_the_same_labels_give_the_same_handle() -> None:
    """A handle can be taken again instead of kept: its counts go on."""
    metrics = Metrics()
    assert metrics.agent("a", "r") is metrics.agent("a", "r")
    assert metrics.agent("a").model("p", "m") is metrics.agent("a").model("p", "m")
    assert metrics.agent("a").tool("t", "mcp") is not metrics.agent("b").tool("t", "mcp")


def test_names_made_up_by_a_model_or_a_caller_share_one_handle_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit new agents, models and tools are counted as `(other)`; none is lost."""
    monkeypatch.setattr(metrics_module, "MAX_HANDLES", 3)
    metrics = Metrics()
    for number in range(10):
        agent = metrics.agent(f"a{number}")
        agent.task_started()
        agent.model("p", f"m{number}").called(1.0, TokenUsage())
        agent.tool(f"t{number}", "mcp").called(1.0)
    started = [
        sample.value for family in families(metrics) if family.name == "task.started" for sample in family.samples
    ]
    assert started == [1, 1, 1, 7]
    page = render(metrics)
    assert 'agent="(other)",role="",provider="(other)",model="(other)",outcome="completed"} 7' in page
    assert 'agent="(other)",role="",tool_name="(other)",tool_type="(other)"} 0' in page


@given(st.lists(st.floats(0, 1e6)))
def test_a_histogram_counts_each_value_once_in_its_range(values: list[float]) -> None:
    """The cumulated count at each bound is the number of values up to it, bounds included."""
    histogram = Histogram((0.5, 1.0, 10.0))
    for value in values:
        histogram.observe(value)
    cumulated = [sum(histogram.counts[: index + 1]) for index in range(4)]
    assert cumulated == [sum(value <= bound for value in values) for bound in (0.5, 1.0, 10.0, float("inf"))]
    assert histogram.count == len(values)
    assert histogram.sum == pytest.approx(sum(values))
