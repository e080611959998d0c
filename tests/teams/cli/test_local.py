"""Where a run in one process has its queue, and what happens where no server can be started."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis.asyncio

from providers import AgentConfig
from queue_backends import Task
from tests.servers import Server
from worker.settings import load_settings
from worker.teams.local import local_fleet, private_urls, queue_name
from worker.teams.plan import Plan, Role, Step, Team
from worker.teams.run_state import Phase

LIMIT_S = 30.0
EMBEDDED = "embedded://?stream=run-r1"


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ("", [EMBEDDED]),
        ("embedded:///srv/q?stream=agents", ["embedded:///srv/q?stream=run-r1", EMBEDDED]),
        ("redis://:p@h:1/2?stream=agents&timeout=3", ["redis://:p@h:1/2?timeout=3&stream=run-r1", EMBEDDED]),
        ("localhost:6379", ["redis://localhost:6379?stream=run-r1", EMBEDDED]),
        ("unix:///run/v.sock?db=1", ["unix:///run/v.sock?db=1&stream=run-r1", EMBEDDED]),
        ("postgresql://db/queue", [EMBEDDED]),
        ("nats://n:4222", [EMBEDDED]),
        ("memory://", []),
    ],
)
def test_a_private_queue_is_where_queues_cost_nothing(configured: str, expected: list[str]) -> None:
    """Beside the configured one on a Redis, else on the embedded server, and nowhere for a queue in memory."""
    assert private_urls(configured, "r1") == expected


async def test_without_a_server_it_runs_in_memory_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be is no reason not to run; but the run dies with its process, and the user is told."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SHOAL_DATA_DIR", str(tmp_path / "file"))
    role = Role(name="poet", config=AgentConfig(model="mock"))
    plan = Plan(
        name="crew",
        teams=(Team(name="crew", roles=(role,), steps=(Step(name="poem", role="poet", inputs={"task": "go"}),)),),
    )
    notes: list[str] = []
    async with local_fleet(load_settings({}), run_id="r1", note=notes.append) as (_, runs, driver):
        await runs.start(plan, {}, run_id="r1", is_local=True)
        state = await driver.drive("r1")
    assert state.phase is Phase.SUCCEEDED
    assert len(notes) == 1
    assert "this run cannot be resumed" in notes[0]


async def test_nothing_of_a_private_queue_lives_for_ever(valkey_server: Server, stream: str) -> None:
    """A run that was left half-way can be resumed for a week; then its queue is gone, and no list of state stays."""
    role = Role(name="poet", config=AgentConfig(model="mock", provider="scripted"))
    step = Step(name="poem", role="poet", inputs={"task": "go"})
    plan = Plan(name="crew", teams=(Team(name="crew", roles=(role,), steps=(step,)),))
    settings = load_settings({"TASK_QUEUE_URL": valkey_server.url(stream)})
    async with local_fleet(settings, run_id=stream) as (backend, runs, _):
        await runs.start(plan, {}, run_id=stream, is_local=True)
        task_id = await backend.queue.submit(Task(prompt="hi"))
        async with asyncio.timeout(LIMIT_S):
            while await backend.queue.results([task_id]) == [None]:
                await asyncio.sleep(0.01)  # the queue itself tells nobody
    async with redis.asyncio.Redis.from_url(valkey_server.url(), decode_responses=True) as raw:
        lifetimes = {key: await raw.ttl(key) async for key in raw.scan_iter(f"{queue_name(stream)}*")}
    assert lifetimes
    assert [key for key, lifetime_s in lifetimes.items() if lifetime_s < 0 or ":state:list:" in key] == []
