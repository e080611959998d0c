"""Notifications of a whole gateway: a run that it drives, the message that follows, and what the API shows of it."""

from __future__ import annotations

import asyncio

import pytest

from providers import AgentConfig
from tests.gateway.callback_receiver import Receiver
from tests.gateway.gateway_harness import GatewayServer, gateway_settings
from worker.budgets.rules import BudgetRule
from worker.budgets.rules import Scope as BudgetScope
from worker.gateway.context import Gateway
from worker.settings import Settings
from worker.teams.notify.service import DispatchView
from worker.teams.plan import Plan, Role, Step, Team


@pytest.fixture(scope="module")
def gateway_config() -> Settings:
    """Receivers are on this machine."""
    each_task = BudgetRule(name="each-task", scope=BudgetScope.TASK, tokens=1, hard=False)
    return gateway_settings(allow_private_addresses=("127.0.0.1",), budgets={"each-task": each_task})


def _plan() -> Plan:
    role = Role(name="one", config=AgentConfig(model="mock", provider="scripted"))
    team = Team(name="told", roles=(role,), steps=(Step(name="only", role="one", inputs={"p": "hello"}),), notify="ops")
    return Plan(name="told", teams=(team,))


async def test_a_run_that_has_ended_is_told_of(gateway_server: GatewayServer) -> None:
    """The policy is made over HTTP; the run is driven by the gateway; the API shows what became of the message."""
    async with Receiver() as receiver, gateway_server.client() as client:
        policy = {"slug": "ops", "channels": [{"url": receiver.url, "template": "{{ .team }} {{ .phase }}"}]}
        made = await client.post("/v1/notifies", json=policy)
        assert made.status_code == 201, made.text
        gateway_server.do(lambda gateway: gateway.runs.start(_plan(), {}))
        [call] = await receiver.calls(1)
        assert call.raw == b"told Succeeded"
        assert (await client.post("/v1/notifies/ops/test")).status_code == 202
        assert (await receiver.calls(2))[1].raw == b"test-team Failed"
        gateway_server.do(_settled)
        [dispatch] = (await client.get("/v1/notifies/ops/dispatches")).json()["items"]
        assert dispatch["succeeded"] is True
        assert (await client.get("/v1/notifies")).json()["total"] == 1
        bad = await client.patch("/v1/notifies/ops", json={"on": ["TeamExploded"]})
        assert bad.status_code == 422


async def _settled(gateway: Gateway) -> tuple[DispatchView, ...]:

    stored = gateway.definitions.notifies.get("ops")
    assert stored is not None
    while [each async for each, _ in gateway.notifications.outbox.all() if "/due/" in each]:
        await asyncio.sleep(0.01)
    return await gateway.notifications.dispatches(stored)


async def test_a_budget_that_a_worker_has_used_up_is_told_of(gateway_server: GatewayServer) -> None:
    """The worker notes it, the gateway tells: from a task to the message."""
    async with Receiver() as receiver, gateway_server.client() as client:
        policy = {"slug": "spending", "channels": [{"url": receiver.url}], "on": ["BudgetExceeded"], "is_for_all": True}
        assert (await client.post("/v1/notifies", json=policy)).status_code == 201
        assert (await client.post("/v1/tasks", json={"prompt": "spend something"})).is_success
        [call] = await receiver.calls(1)
        assert (call.body["event"], "each-task" in call.body["message"]) == ("BudgetExceeded", True)


async def test_a_tenants_policy_reads_no_variable_of_others(gateway_server: GatewayServer) -> None:
    """An administrator of a tenant cannot have the gateway's secrets sent anywhere."""
    key = gateway_server.make_key(["admin"], tenant="acme")
    header = {"name": "x", "value_env": "OPENAI_API_KEY"}
    async with gateway_server.client(key=key) as client:
        new = {"slug": "spy", "channels": [{"url": "https://example.com/", "headers": [header]}]}
        refused = await client.post("/v1/notifies", json=new)
        assert refused.status_code == 422
        assert "SHOAL_TENANT_ACME__<NAME>" in refused.json()["detail"]
        header["value_env"] = "SHOAL_TENANT_ACME__TOKEN"
        assert (await client.post("/v1/notifies", json=new)).status_code == 201
