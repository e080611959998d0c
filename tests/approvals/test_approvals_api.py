"""`/v1/approvals`: who sees questions, who answers them, and what the second one is told."""

from __future__ import annotations

import asyncio

from tests.gateway.conftest import _own_log, _quiet_log, gateway_config, gateway_queue_url, gateway_server
from tests.gateway.gateway_harness import WITHIN_S, GatewayServer
from worker.approvals import Approval
from worker.gateway.caller import Scope

__all__ = ["_own_log", "_quiet_log", "gateway_config", "gateway_queue_url", "gateway_server"]


def put(server: GatewayServer, key: str, **fields: object) -> str:
    """Put a question; its id."""
    question = Approval(**{"message": key, **fields})  # type: ignore[arg-type]  # fields of all types
    return server.do(lambda gateway: gateway.approvals.store.open(question, key=key)).id


async def test_questions_are_listed_shown_and_answered(gateway_server: GatewayServer) -> None:
    """A key that may answer does; the question is gone from the list then, and its answer can be read."""
    approval_id = put(gateway_server, "list-me", what="tool", tool="wipe", arguments={"disk": "sda"}, run="r1")
    async with gateway_server.client() as client:
        listed = (await client.get("/v1/approvals", params={"run": "r1"})).json()
        assert [each["id"] for each in listed["approvals"]] == [approval_id]
        shown = (await client.get(f"/v1/approvals/{approval_id}")).json()
        assert (shown["tool"], shown["arguments"]) == ("wipe", {"disk": "sda"})
        body = {"approved": True, "comment": "go on"}
        answer = await client.post(f"/v1/approvals/{approval_id}", json=body)
        assert (answer.status_code, answer.json()["approved"], answer.json()["comment"]) == (200, True, "go on")
        again = await client.post(f"/v1/approvals/{approval_id}", json=body)
        assert again.json() == answer.json()  # as after a lost reply
        other = await client.post(f"/v1/approvals/{approval_id}", json={"approved": False})
        assert (other.status_code, other.json()["code"]) == (409, "approval_decided")
        assert "was approved already" in other.json()["detail"]
        assert (await client.get("/v1/approvals", params={"run": "r1"})).json()["approvals"] == []
        decided = (await client.get("/v1/approvals", params={"run": "r1", "state": "decided"})).json()
        assert [each["id"] for each in decided["approvals"]] == [approval_id]
        assert (await client.get("/v1/approvals/nothing")).status_code == 404
        assert (await client.post("/v1/approvals/nothing", json={"approved": True})).status_code == 404


async def test_of_two_who_answer_at_once_one_wins(gateway_server: GatewayServer) -> None:
    """The other is told."""
    approval_id = put(gateway_server, "race")
    keys = [gateway_server.make_key([Scope.APPROVALS_WRITE], name=f"person {number}") for number in range(8)]

    async def say(key: str, approved: bool) -> int:
        async with gateway_server.client(key=key) as client:
            return (await client.post(f"/v1/approvals/{approval_id}", json={"approved": approved})).status_code

    codes = await asyncio.gather(*(say(key, number % 2 == 0) for number, key in enumerate(keys)))
    assert sorted(codes) == [200, *[409] * 7]


async def test_who_submits_may_not_approve(gateway_server: GatewayServer) -> None:
    """Answering has a scope of its own; and nobody sees another tenant's questions."""
    approval_id = put(gateway_server, "acme's", tenant="acme")
    submitter = gateway_server.make_key([Scope.TASKS_READ, Scope.TASKS_WRITE, Scope.OPS_WRITE])
    stranger = gateway_server.make_key([Scope.ADMIN], tenant="other")
    person = gateway_server.make_key([Scope.APPROVALS_WRITE, Scope.TASKS_READ], tenant="acme")
    body = {"approved": True}
    async with gateway_server.client(key=submitter) as client:
        assert (await client.post(f"/v1/approvals/{approval_id}", json=body)).status_code == 403
    async with gateway_server.client(key=stranger) as client:
        assert (await client.get(f"/v1/approvals/{approval_id}")).status_code == 404
        assert (await client.post(f"/v1/approvals/{approval_id}", json=body)).status_code == 404
        assert (await client.get("/v1/approvals")).json() == {"approvals": [], "open": 0}
    async with gateway_server.client(key=person) as client:
        assert (await client.post(f"/v1/approvals/{approval_id}", json=body)).status_code == 200


async def test_watchers_hear_of_questions(gateway_server: GatewayServer) -> None:
    """The feed of the pages has their number, and changes with each."""

    async def hear() -> dict[str, object]:
        async with gateway_server.client() as client, client.stream("GET", "/v1/ops/events") as events:
            name = ""
            async for line in events.aiter_lines():
                name = line.removeprefix("event: ") if line.startswith("event: ") else name
                if line.startswith("data: ") and name == "approvals":
                    import json

                    found: dict[str, object] = json.loads(line.removeprefix("data: "))
                    return found
        raise AssertionError("the feed has ended")

    async with asyncio.timeout(WITHIN_S):
        before = await hear()
        put(gateway_server, "count me")
        while (after := await hear())["open"] == before["open"]:
            pass
    assert after["version"] != before["version"]
