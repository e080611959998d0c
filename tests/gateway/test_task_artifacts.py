"""Files of tasks, fetched through the gateway."""

from __future__ import annotations

from pathlib import Path

import pytest

from providers import AgentConfig
from tests.gateway.gateway_harness import GatewayServer, gateway_settings
from worker.gateway.caller import Scope
from worker.settings import Settings
from worker.settings.artifacts import ArtifactSettings

SAVING = {"name": "save_artifact", "arguments": {"name": "Übersicht 1.html", "content": "<script>x</script>"}}
SCRIPT = {"scenarios": [{"turns": [{"tool_calls": [SAVING]}, {"text": "done"}]}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the store."""
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def gateway_config(folder: Path) -> Settings:
    """A gateway, and a worker whose model saves a file."""
    artifacts = ArtifactSettings(store_url=(folder / "store").as_uri(), dir=str(folder / "work"), tools=True)
    agent = AgentConfig(model="mock", provider="scripted", options={"script": SCRIPT})
    return gateway_settings(agent=agent, artifacts=artifacts)


async def test_a_file_is_fetched_as_a_download(gateway_server: GatewayServer) -> None:
    """Proves that the result names the file, and that its bytes come as something that no browser runs."""
    async with gateway_server.client() as client:
        task = (await client.post("/v1/tasks?wait_s=20", json={"prompt": "go"})).json()
        [name] = task["result"]["artifacts"]
        found = await client.get(f"/v1/tasks/{task['id']}/artifacts/{name}")
    assert (found.status_code, found.text) == (200, "<script>x</script>")
    assert found.headers["content-type"] == "application/octet-stream"
    assert found.headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%9Cbersicht%201.html"
    assert found.headers["x-content-type-options"] == "nosniff"


async def test_a_file_is_for_who_may_see_its_task(gateway_server: GatewayServer) -> None:
    """Proves that another tenant finds neither the task nor its file, and that a key needs the scope for reading."""
    use = (Scope.TASKS_READ, Scope.TASKS_WRITE, Scope.AGENTS_USE)
    mine, foreign = (gateway_server.make_key(use, tenant=tenant) for tenant in ("north", "south"))
    blind = gateway_server.make_key((Scope.AGENTS_USE,), tenant="north")
    async with gateway_server.client(mine) as client:
        task = (await client.post("/v1/tasks?wait_s=20", json={"prompt": "go"})).json()
        [name] = task["result"]["artifacts"]
        path = f"/v1/tasks/{task['id']}/artifacts/{name}"
        own = (await client.get(path)).status_code
    async with gateway_server.client(foreign) as client:
        other = (await client.get(path)).status_code
    async with gateway_server.client(blind) as client:
        unread = (await client.get(path)).status_code
    assert (own, other, unread) == (200, 404, 403)


async def test_what_is_not_there_is_404(gateway_server: GatewayServer, folder: Path) -> None:
    """Proves the answers for a file that the task has not made, and for one that somebody has removed."""
    async with gateway_server.client() as client:
        task = (await client.post("/v1/tasks?wait_s=20", json={"prompt": "go"})).json()
        [name] = task["result"]["artifacts"]
        absent = await client.get(f"/v1/tasks/{task['id']}/artifacts/other")
        (folder / "store" / "tasks" / task["id"] / name).unlink()
        removed = await client.get(f"/v1/tasks/{task['id']}/artifacts/{name}")
    assert (absent.status_code, absent.json()["code"]) == (404, "artifact_not_found")
    assert (removed.status_code, removed.json()["code"]) == (502, "artifact_store")


async def test_nobody_names_inputs_by_meta(gateway_server: GatewayServer) -> None:
    """Proves that a client cannot have a file of somebody else put into its own task's folder."""
    async with gateway_server.client() as client:
        refused = await client.post("/v1/tasks", json={"prompt": "go", "meta": {"team_inputs": "{}"}})
    assert refused.status_code == 422
