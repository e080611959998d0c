"""What a queue's engine cannot promise is said before anybody relies on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_backends import Backend, BackendOptions, Capability, registry
from queue_backends.memory import MemoryBackend
from tests.cli.cli_harness import Shoal
from tests.servers import Server, valkey_program
from tests.worker.fleet_programs import FleetProgram


@pytest.fixture
def careless_server() -> Iterator[Server]:
    """Keeps nothing on disk, and throws keys away when its memory is full."""
    program = valkey_program()
    assert program is not None
    with Server(program, options=["--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru"]) as server:
        yield server


async def _open_elsewhere(url: str, options: BackendOptions) -> Backend:
    raise AssertionError("nobody shall open an engine to list it")


def test_every_engine_is_listed_with_its_gaps(shoal: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    """As text and as JSON: what it lacks, or that it lacks nothing; engines of other packages are listed too."""
    monkeypatch.setitem(registry._registered, "elsewhere", _open_elsewhere)
    listed = {row["scheme"]: row for row in map(json.loads, shoal("backends", "--json").out.splitlines())}
    assert listed["memory"]["gaps"] == {name.value: why for name, why in MemoryBackend.gaps.items()}
    assert listed["redis"]["gaps"] == {}
    assert listed["redis"]["missing"] == listed["embedded"]["missing"] == ""
    assert "elsewhere" in listed
    text = shoal("backends").out
    assert f"lacks durable: {MemoryBackend.gaps[Capability.DURABLE]}" in text
    assert "every guarantee" in text


def test_an_engine_without_its_driver_says_what_to_install(shoal: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gaps are known all the same, if it keeps them apart from what needs the driver."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(registry._registered, "nats", _open_elsewhere)
    listed = {row["scheme"]: row for row in map(json.loads, shoal("backends", "--json").out.splitlines())}
    assert listed["nats"]["missing"] == 'pip install "shoal[nats]"'


def test_doctor_doubts_a_server_that_may_lose_tasks(shoal: Shoal, careless_server: Server) -> None:
    """Its advice is where durability is explained; a server that keeps what it confirms gets none."""
    found = [json.loads(line) for line in shoal("doctor", "--json", "--queue", careless_server.url()).out.splitlines()]
    (doubt,) = [row for row in found if row["name"] == "durable"]
    assert doubt["verdict"] == "warning"
    assert "append-only file" in doubt["detail"]
    assert "allkeys-lru" in doubt["detail"]


@pytest.mark.parametrize("durable", [False, True])
async def test_worker_says_the_gaps_of_its_queue_when_it_starts(tmp_path: Path, stream: str, durable: bool) -> None:
    """In the JSON log, one line for each, before the first task; none for a server that lacks nothing."""
    program = valkey_program()
    assert program is not None
    with Server(program, durable=durable) as server:
        settings = {"agent": {"model": "mock", "provider": "scripted"}}
        worker = FleetProgram(tmp_path, server.url(stream), settings, "--health-port", "0")
        try:
            await worker.logged("agent runtime started")
        finally:
            worker.close()
        lines = worker.lines("the queue's engine lacks a guarantee")
    assert [(line["level"], line["engine"], line["lacks"]) for line in lines] == (
        [] if durable else [("warning", "redis", "durable")]
    )
