"""The Kubernetes examples name only what there is: settings, ports, pages, metrics, keys. No cluster is needed."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from queue_backends import open_backend
from queue_backends.redis.keys import DEFAULT_STREAM, Keys
from worker.health import HealthServer, HealthState
from worker.metrics import Metrics
from worker.prometheus import render
from worker.queue_gauges import QueueGauges, queue_name
from worker.settings import SETTINGS, load_settings

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "kubernetes"
KEYS_OF_PROVIDERS = {"ANTHROPIC_API_KEY", "OPENAI_API_KEY"}


def documents(kind: str = "") -> list[dict[str, Any]]:
    """All objects of the examples, or those of a kind."""
    found = [item for file in sorted(FOLDER.glob("*.yaml")) for item in yaml.safe_load_all(file.read_text())]
    return [item for item in found if not kind or item["kind"] == kind]


@pytest.fixture
def pod() -> dict[str, Any]:
    """The worker's pod."""
    (deployment,) = documents("Deployment")
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    """The only container of the pod."""
    (only,) = pod["containers"]
    assert isinstance(only, dict)
    return only


def environment(container: dict[str, Any]) -> dict[str, str]:
    """What the container gets, with something in place of what the cluster fills in."""
    return {item["name"]: item.get("value", "filled-in") for item in container["env"]}


async def exported_metrics() -> set[str]:
    """Every name on the metrics page of a worker that has done one of everything."""
    metrics = Metrics(namespace="prod")
    agent = metrics.agent("writer")
    agent.task_started(queue_wait_s=0.2)
    agent.task_ended(1.0, ok=True)
    metrics.worker.silent_s = lambda: 2.5
    async with await open_backend("memory://") as backend:
        metrics.queue = QueueGauges(backend.queue.stats, DEFAULT_STREAM)
        await metrics.queue.refresh()
    return set(re.findall(r"^(shoal_\w+)", render(metrics), re.MULTILINE))


def queries() -> list[str]:
    """Every PromQL expression of the examples."""
    rules = [
        rule["expr"] for item in documents("PrometheusRule") for g in item["spec"]["groups"] for rule in g["rules"]
    ]
    return rules + [t["metadata"]["query"] for t in triggers() if t["type"] == "prometheus"]


def triggers() -> list[dict[str, Any]]:
    """What the ScaledObjects look at."""
    return [trigger for item in documents("ScaledObject") for trigger in item["spec"]["triggers"]]


def test_every_object_says_what_it_is() -> None:
    """Each document of each file has what Kubernetes asks of all of them."""
    assert {item["kind"] for item in documents()} == {
        "Deployment", "PodDisruptionBudget", "PodMonitor", "PrometheusRule", "ScaledObject",
    }  # fmt: skip
    assert all(item["apiVersion"] and item["metadata"]["name"] == "shoal-worker" for item in documents())


def test_variables_are_settings_with_values_that_are_allowed(container: dict[str, Any]) -> None:
    """A misspelt variable would be ignored without a word."""
    given = environment(container)
    known = {setting.variable for setting in SETTINGS}

    assert set(given) - KEYS_OF_PROVIDERS <= known
    settings = load_settings(given, file=None)
    assert settings.concurrency == int(given["AGENT_MAX_CONCURRENT_TASKS"])


def test_the_pod_may_take_longer_than_the_workers_grace(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """Killed before, a worker could not hand back what it holds; a lease that is too short would be lost meanwhile."""
    settings = load_settings(environment(container), file=None)

    assert pod["terminationGracePeriodSeconds"] >= settings.grace_s + 10


async def test_probes_ask_for_pages_that_there_are(container: dict[str, Any]) -> None:
    """Port and path of each probe, as the worker itself serves them."""
    (port,) = container["ports"]
    settings = load_settings(environment(container), file=None)
    probes = [container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    (monitor,) = documents("PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]

    assert port["containerPort"] == settings.health_port
    assert {probe["port"] for probe in [*probes, endpoint]} == {port["name"]}
    for path in {probe["path"] for probe in [*probes, endpoint]}:
        assert await _status(path) != 404


async def _status(path: str) -> int:
    server = HealthServer(HealthState(), Metrics(), host="127.0.0.1", port=0)
    await server.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readline(), 30)
        writer.close()
        await writer.wait_closed()
    finally:
        await server.close()
    return int(head.split()[1])


async def test_queries_use_metrics_that_are_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """An alert on a name that nobody exports never fires."""
    monkeypatch.setattr("worker.queue_gauges.LIMIT_S", 30.0)  # a slow machine is no queue that is away
    exported = await exported_metrics()
    used = {name for query in queries() for name in re.findall(r"\b(?:shoal|redis)_\w+", query)}

    assert len(used) >= 8
    assert used - exported == set()


def test_the_queues_figures_are_never_summed_over_workers() -> None:
    """Each worker shows the whole queue: a sum would ask for as many times too many pods as there are."""
    about_queues = [query for query in queries() if "shoal_queue_" in query]

    assert about_queues
    assert not any(re.search(r"\b(?:sum|avg|count)\b", query) for query in about_queues)
    assert all(query.startswith("max") for query in about_queues)


def test_scalers_look_at_the_keys_of_the_queue(container: dict[str, Any]) -> None:
    """Every lane, and the tasks that are not ready yet; of the very queue that the workers pull from."""
    keys = Keys(DEFAULT_STREAM)
    looked_at = {t["metadata"].get("stream") or t["metadata"].get("listName") for t in triggers()} - {None}

    assert environment(container)["TASK_QUEUE_URL"].endswith(f"?stream={DEFAULT_STREAM}")
    assert looked_at == {*keys.lanes, keys.delayed}
    assert not any("consumerGroup" in trigger["metadata"] for trigger in triggers())
    named = {found for query in queries() for found in re.findall(r'queue="([^"]+)"', query)}
    assert named == {queue_name(environment(container)["TASK_QUEUE_URL"])} == {DEFAULT_STREAM}


def test_a_pod_is_asked_for_before_the_slots_are_full(container: dict[str, Any]) -> None:
    """A target of as many tasks as there are slots would leave none for what comes while a pod starts."""
    slots = load_settings(environment(container), file=None).concurrency
    targets = [t["metadata"].get("streamLength") or t["metadata"].get("threshold") for t in triggers()]

    assert all(slots / 2 <= int(target) < slots for target in targets if target)


def test_selectors_find_the_pods() -> None:
    """Budget, monitor and scaler mean the same pods."""
    (deployment,) = documents("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]

    for item in documents("PodDisruptionBudget") + documents("PodMonitor") + documents("Deployment"):
        assert item["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for item in documents("ScaledObject"):
        assert item["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
        assert "replicas" not in deployment["spec"]


def test_the_documentation_names_every_file() -> None:
    """docs/scaling.md leads to each of them."""
    text = (ROOT / "docs" / "scaling.md").read_text()

    assert [file.name for file in sorted(FOLDER.glob("*.yaml")) if f"examples/kubernetes/{file.name}" not in text] == []
