"""Whose tasks and conversations a caller reaches: its tenant's, its app's, its own."""

from __future__ import annotations

import httpx
import pytest

from tests.gateway.gateway_harness import GatewayServer
from worker.agents.model import Agent, App
from worker.gateway.caller import Scope
from worker.gateway.context import Gateway

USE = (Scope.TASKS_READ, Scope.TASKS_WRITE, Scope.AGENTS_USE)


async def _ask(client: httpx.AsyncClient, conversation: str, prompt: str = "hi") -> httpx.Response:
    return await client.post("/v1/tasks?wait_s=20", json={"prompt": prompt, "conversation_id": conversation})


async def test_a_conversation_is_for_who_began_it(gateway_server: GatewayServer) -> None:
    """Another key of the same tenant cannot go on with it, alone or in a batch; its own key and an admin can. Another
    tenant's conversation of the same name is another one."""
    mine, colleague, stranger = (gateway_server.make_key(USE, tenant=tenant) for tenant in ("north", "north", "south"))
    async with (
        gateway_server.client(mine) as client,
        gateway_server.client(colleague) as other,
        gateway_server.client(stranger) as foreign,
        gateway_server.client() as admin,
    ):
        began = await _ask(client, "talk", "my secret is 7")
        refused = await _ask(other, "talk")
        batch = {"tasks": [{"prompt": "hi"}, {"prompt": "hi", "conversation_id": "talk"}]}
        refused_batch = await other.post("/v1/tasks/batch", json=batch)
        listed = (await other.get("/v1/tasks")).json()["tasks"]
        went_on = await _ask(client, "talk")
        by_admin = await admin.post(
            "/v1/tasks?wait_s=20", json={"prompt": "hi", "conversation_id": "talk", "tenant": "north"}
        )
        elsewhere = await _ask(foreign, "talk")

    assert (began.status_code, went_on.status_code, by_admin.status_code, elsewhere.status_code) == (200,) * 4
    assert (refused.status_code, refused.json()["code"]) == (403, "foreign_conversation")
    assert refused_batch.status_code == 422
    assert [(each["index"], each["code"]) for each in refused_batch.json()["errors"]] == [(1, "foreign_conversation")]
    assert len(listed) == 1


async def test_a_sessions_conversation_is_its_owners(gateway_server: GatewayServer) -> None:
    """From the moment when it is opened, whichever way it was; once it is deleted, it is nobody's."""
    mine, theirs = (gateway_server.make_key(USE, tenant="east") for _ in range(2))
    async with gateway_server.client(mine) as client, gateway_server.client(theirs) as other:
        session = (await client.post("/v1/sessions", json={"agent": "default"})).json()
        address = f"/v1/sessions/{session['session']['id']}/conversations"
        further = (await client.post(address, json={})).json()["id"]
        [first] = [each["id"] for each in session["conversations"]]
        refused = [(await _ask(other, each)).status_code for each in (first, further)]
        own = (await _ask(client, further)).status_code
        await client.delete(f"{address}/{further}")
        free = (await _ask(other, further)).status_code

    assert refused == [403, 403]
    assert (own, free) == (200, 200)


async def test_a_conversation_that_nobody_claimed_is_nobodys(gateway_server: GatewayServer) -> None:
    """One that another engine began can only be gone on with by an admin."""
    key = gateway_server.make_key(USE, tenant="west")
    async with gateway_server.client(key) as client, gateway_server.client() as admin:
        assert (await _ask(client, "old")).status_code == 200
        gateway_server.do(lambda gateway: gateway.backend.state.delete("conversation-owners/west/old"))
        refused = await _ask(client, "old")
        body = {"prompt": "hi", "conversation_id": "old", "tenant": "west"}
        by_admin = await admin.post("/v1/tasks?wait_s=20", json=body)
    assert (refused.status_code, by_admin.status_code) == (403, 200)


@pytest.mark.parametrize("tenant", ["", "acme"])
async def test_an_apps_key_sees_its_apps_tasks_alone(gateway_server: GatewayServer, tenant: str) -> None:
    """Those for the app's agents, whoever submitted them; others of the tenant are not there."""
    names = [f"{slug}{tenant}" for slug in ("shop", "desk")]

    async def declare(gateway: Gateway) -> None:
        for name in names:
            await gateway.definitions.apps.create(App(slug=name, namespace=tenant))
            await gateway.definitions.agents.create(Agent(slug=f"{name}-agent", app=name, namespace=tenant))

    gateway_server.do(declare)
    async with gateway_server.client() as admin:
        key = gateway_server.make_key(USE, tenant=tenant, app=f"shop{tenant}")
        tasks = {}
        for name in (f"shop{tenant}-agent", f"desk{tenant}-agent", ""):
            body = {"prompt": "hi", "agent": name, "tenant": tenant, "delay_s": 0 if name else 86_400}
            tasks[name] = (await admin.post("/v1/tasks?wait_s=1", json=body)).json()["id"]
        async with gateway_server.client(key) as client:
            own = (
                await client.post("/v1/tasks?wait_s=20", json={"prompt": "hi", "agent": f"shop{tenant}-agent"})
            ).json()
            found = {name: await _reads(client, task_id) for name, task_id in tasks.items()}
            listed = [task["id"] for task in (await client.get("/v1/tasks?limit=500")).json()["tasks"]]
            await admin.delete(f"/v1/agents/shop{tenant}-agent", params={"namespace": tenant})
            after = await _reads(client, own["id"])

    assert found == {f"shop{tenant}-agent": {200}, f"desk{tenant}-agent": {404}, "": {404}}
    assert sorted(listed) == sorted([own["id"], tasks[f"shop{tenant}-agent"]])
    assert after == {200}  # its own task, although the agent is gone


async def _reads(client: httpx.AsyncClient, task_id: str) -> set[int]:
    return {(await client.get(f"/v1/tasks/{task_id}{path}")).status_code for path in ("", "/timeline", "/usage")}
