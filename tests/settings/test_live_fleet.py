"""Live settings in a real fleet: a change reaches all worker processes, and runs in flight keep what they have."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from queue_backends import open_backend
from tests.settings.naming_server import NamingServer
from tests.worker.fleet_programs import fleet_program
from worker.client import Fleet
from worker.live_settings import LiveSettings
from worker.sealing import VARIABLE, Sealer

LIMIT_S = 30.0
SECRET_KEY = "the fleet's own secret key"


async def test_a_change_reaches_all_processes_and_no_run_in_flight(
    queue_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three processes, one task each. One holds a run at server A; then the address and the key change. The other two
    come to server B with the new key, at the same time, so that both have changed; the first one's next model call
    goes to A with the old key."""
    monkeypatch.setenv(VARIABLE, SECRET_KEY)
    settings = {
        "agent": {"model": "claude-any", "provider": "anthropic"},
        "processes": 3,
        "concurrency": 1,
        "timeout_s": 600,
    }
    async with (
        asyncio.timeout(LIMIT_S),
        NamingServer("A") as server_a,
        NamingServer("B", is_meeting_place=True) as server_b,
        await open_backend(queue_url) as backend,
        LiveSettings(backend.state, sealer=Sealer(SECRET_KEY)) as live,
    ):
        fleet = Fleet(backend)
        await live.set("plugin.anthropic.base_url", server_a.url)
        await live.set("plugin.anthropic.api_key", "old-key")
        with fleet_program(tmp_path, queue_url, settings) as program:
            try:
                early = await fleet.submit("wait")
                await server_a.held.wait()
                await live.set("plugin.anthropic.api_key", "new-key")
                await live.set("plugin.anthropic.base_url", server_b.url)
                await asyncio.gather(*(_until_it_says(fleet, "B") for _ in range(2)))
                server_a.go_on.set()
                assert (await early.result(LIMIT_S)).output == "A"
            except BaseException:
                print(program.log.read_text())
                raise
        held = [key for body, key in zip(server_a.calls, server_a.keys, strict=True) if "wait" in str(body)]
        assert held == ["old-key", "old-key"]
        assert set(server_b.keys) == {"new-key"}


async def _until_it_says(fleet: Fleet, name: str) -> None:
    """Submit tasks, one after the other, until a worker that knows the new address has one."""
    while (await (await fleet.submit("both")).result(LIMIT_S)).output != name:
        await asyncio.sleep(0.02)
