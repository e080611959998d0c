"""The Compose file offers every engine, and its URLs are ones that the engines' own parsers take."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from queue_backends.redis.client import RedisClient

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
WORKERS = {name: service for name, service in SERVICES.items() if name.startswith("worker")}
ONCE = "cluster-made"
"""Ends when its work is done, so that nothing can watch its health."""


def _redis(url: str) -> list[str]:
    return [str(urlsplit(RedisClient(url).url).hostname)]


def _sentinel(url: str) -> list[str]:
    from queue_backends.redis.sentinel_url import parse

    parsed = parse(url)
    assert parsed.wait_replicas == 1
    return [address.host for address in parsed.sentinels]


def _cluster(url: str) -> list[str]:
    from queue_backends.redis_cluster.url import parse

    return [address.host for address in parse(url).seeds]


def _nats(url: str) -> list[str]:
    from queue_backends.nats.address import parse_address

    return [str(urlsplit(server).hostname) for server in parse_address(url).servers]


def _postgresql(url: str) -> list[str]:
    from queue_backends.postgresql.address import Address

    return [str(urlsplit(Address.of(url).server).hostname)]


def _arq(url: str) -> list[str]:
    pytest.importorskip("arq", reason="arq needs another version of the Redis driver than everybody else")
    from queue_backends.arq.queue_url import taken_apart

    return _redis(taken_apart(url).server)


PARSERS: dict[str, Callable[[str], list[str]]] = {
    "redis": _redis,
    "redis+sentinel": _sentinel,
    "redis+cluster": _cluster,
    "nats": _nats,
    "postgresql": _postgresql,
    "arq+redis": _arq,
}
"""The scheme of a URL -> the hosts that its engine's own parser finds in one."""


def _url(worker: str) -> str:
    """The worker's queue, variables at their defaults."""
    url: str = WORKERS[worker]["environment"]["TASK_QUEUE_URL"]
    while (filled := re.sub(r"\$\{\w+:-([^${}]*)\}", r"\1", url)) != url:
        url = filled
    return url


def _needs(service: str) -> set[str]:
    """Everything that is started before a service."""
    found: set[str] = set()
    waiting = [service]
    while waiting:
        direct = set(SERVICES[waiting.pop()].get("depends_on", {})) - found
        found |= direct
        waiting += direct
    return found


@pytest.mark.parametrize("worker", WORKERS)
async def test_a_worker_waits_for_the_servers_of_its_queue(worker: str) -> None:
    """Its URL is one of an engine of this package, and each host in it is a service that is healthy before the worker
    starts, directly or by way of another."""
    url = _url(worker)
    scheme = url.partition("://")[0]
    assert scheme in PROJECT["entry-points"]["shoal.queue_backends"]
    hosts = PARSERS[scheme](url)
    assert hosts
    assert set(hosts) <= _needs(worker)


def test_every_engine_that_is_a_server_is_offered() -> None:
    """One profile each; Valkey beside Redis."""
    assert {_url(worker).partition("://")[0] for worker in WORKERS} == set(PARSERS)
    profiles = {profile for service in SERVICES.values() for profile in service.get("profiles", [])}
    assert profiles == {name.removeprefix("worker-") for name in WORKERS if name != "worker"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_complete(name: str) -> None:
    """Servers say when they are healthy and are started again; what a service needs belongs to its profile, or to all;
    and what its image tag or its secrets leave open has a default."""
    service = SERVICES[name]
    if name not in WORKERS and name != ONCE:
        assert service["healthcheck"]["test"]
        assert service["restart"] == "unless-stopped"
    for needed, how in service.get("depends_on", {}).items():
        wanted = "service_completed_successfully" if needed == ONCE else "service_healthy"
        assert how == {"condition": wanted}
        assert SERVICES[needed].get("profiles") in (None, service.get("profiles"))
    assert all(":-" in variable for variable in re.findall(r"\$\{([^}]+)\}", yaml.safe_dump(service)))


def test_a_bare_start_is_the_default_queue_alone() -> None:
    """`docker compose up` starts Redis, its workers and the gateway, whatever else there is."""
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == {"redis", "worker", "gateway"}


def test_the_gateway_asks_for_a_key() -> None:
    """It is open to the network, so that nobody may use it unasked; it serves the queue that the workers work on."""
    gateway = SERVICES["gateway"]
    assert gateway["environment"]["SHOAL_AUTH"] == "required"
    assert gateway["environment"]["TASK_QUEUE_URL"] == SERVICES["worker"]["environment"]["TASK_QUEUE_URL"]


@pytest.mark.parametrize("worker", sorted(WORKERS.keys() - {"worker"}))
def test_the_manual_has_a_line_for_each(worker: str) -> None:
    """How to start it."""
    manual = (ROOT / "docs" / "queue-backends.md").read_text(encoding="utf-8")
    assert f"docker compose up --build {worker}" in manual
