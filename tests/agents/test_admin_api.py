"""Agents, apps, models and groups over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from tests.gateway.gateway_harness import GatewayServer, gateway_settings
from worker.gateway import admin_api, health_api
from worker.gateway.caller import Scope


@pytest.fixture(scope="module")
def server() -> Iterator[GatewayServer]:
    """A gateway with the admin API."""
    operations = (*health_api.OPERATIONS, *admin_api.OPERATIONS)
    with GatewayServer(gateway_settings(), operations=operations, with_worker=False) as running:
        yield running


@pytest.fixture
async def admin(server: GatewayServer) -> AsyncIterator[httpx.AsyncClient]:
    """A client that may do everything."""
    async with server.client() as client:
        yield client


async def made(client: httpx.AsyncClient, path: str, **fields: Any) -> httpx.Response:
    """Create an object and hand back the answer."""
    response = await client.post(path, json=fields)
    assert response.status_code == 201, response.text
    return response


async def test_an_agent_is_created_read_changed_and_deleted(admin: httpx.AsyncClient) -> None:
    """The whole life of one, with its version as ETag at each step."""
    response = await made(admin, "/v1/agents", name="Support Desk", model="gpt-4o", system_prompt="You help.")
    assert (response.headers["location"], response.headers["etag"]) == ("/v1/agents/support-desk", '"1"')

    shown = await admin.get("/v1/agents/support-desk")
    assert shown.json()["definition"]["system_prompt"] == "You help."
    again = await admin.get("/v1/agents/support-desk", headers={"If-None-Match": shown.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")

    definition = {**shown.json()["definition"], "description": "Answers customers"}
    replaced = await admin.put("/v1/agents/support-desk", json=definition, headers={"If-Match": '"1"'})
    assert (replaced.status_code, replaced.headers["etag"]) == (200, '"2"')

    patched = await admin.patch("/v1/agents/support-desk", json={"settings": {"max_tokens": 5}, "description": None})
    assert patched.json()["definition"]["settings"] == {"max_tokens": 5}
    assert patched.json()["description"] == ""

    off = await admin.post("/v1/agents/support-desk/deactivate")
    assert (off.json()["is_active"], off.json()["version"]) == (False, 4)
    on = await admin.post("/v1/agents/support-desk/activate")
    assert on.json()["is_active"] is True

    kept = (await admin.get("/v1/agents/support-desk/versions")).json()["items"]
    assert [each["version"] for each in kept] == [5, 4, 3, 2, 1]
    back = await admin.post("/v1/agents/support-desk/rollback", json={"version": 2})
    assert back.json()["definition"]["description"] == "Answers customers"

    assert (await admin.delete("/v1/agents/support-desk", headers={"If-Match": '"6"'})).status_code == 204
    assert (await admin.get("/v1/agents/support-desk")).status_code == 404


async def test_a_write_that_has_not_seen_the_last_version_is_refused(admin: httpx.AsyncClient) -> None:
    """PUT, PATCH and DELETE with an old ETag are 412 and change nothing; a malformed one is 400."""
    await made(admin, "/v1/agents", slug="contended", model="gpt-4o")
    await admin.patch("/v1/agents/contended", json={"name": "Second"})
    old = {"If-Match": '"1"'}
    definition = {"slug": "contended", "model": "gpt-4o", "name": "Third"}
    answers = [
        await admin.put("/v1/agents/contended", json=definition, headers=old),
        await admin.patch("/v1/agents/contended", json={"name": "Third"}, headers=old),
        await admin.delete("/v1/agents/contended", headers=old),
    ]
    assert [(each.status_code, each.json()["code"]) for each in answers] == [(412, "version_mismatch")] * 3
    assert (await admin.get("/v1/agents/contended")).json()["name"] == "Second"
    assert (await admin.delete("/v1/agents/contended", headers={"If-Match": "soon"})).status_code == 400


async def test_lists_are_filtered_and_paginated(admin: httpx.AsyncClient) -> None:
    """By text, app and activity; the total counts all pages."""
    await made(admin, "/v1/llms", slug="list-model", model="gpt-4o")
    await made(admin, "/v1/apps", slug="list-app", llms=["list-model"])
    for number in range(5):
        await made(admin, "/v1/agents", slug=f"listed-{number}", app="list-app", description="One of five")
    await admin.post("/v1/agents/listed-0/deactivate")

    page = (await admin.get("/v1/agents", params={"app": "list-app", "limit": 2, "page": 2})).json()
    assert (page["total"], [each["slug"] for each in page["items"]]) == (5, ["listed-2", "listed-1"])
    off = (await admin.get("/v1/agents", params={"text": "ONE OF", "is_active": "false"})).json()
    assert [each["slug"] for each in off["items"]] == ["listed-0"]
    assert (await admin.get("/v1/agents", params={"limit": 0})).status_code == 400


async def test_what_cannot_work_is_refused_with_the_reason(admin: httpx.AsyncClient) -> None:
    """Unknown references, settings, kinds of fields, and a slug that is taken."""
    await made(admin, "/v1/groups", slug="taken")
    answers = [
        await admin.post("/v1/agents", json={"slug": "a", "app": "nowhere"}),
        await admin.post("/v1/agents", json={"slug": "a", "model": "m", "groups": ["nobody"]}),
        await admin.post("/v1/agents", json={"slug": "a", "model": "m", "settings": {"maxtokens": 3}}),
        await admin.post("/v1/agents", json={"slug": "A B", "model": "m"}),
        await admin.post("/v1/agents", json={"slug": "a", "model": "m", "surprise": 1}),
        await admin.post("/v1/groups", json={"slug": "taken"}),
        await admin.put("/v1/groups/taken", json={"slug": "other"}),
        await admin.post("/v1/groups/taken/activate"),
    ]
    assert [each.status_code for each in answers] == [422, 422, 422, 422, 400, 409, 422, 404]
    assert "nowhere" in answers[0].json()["detail"]
    assert "max_tokens" in answers[2].json()["detail"]


async def test_what_others_refer_to_is_not_deleted(admin: httpx.AsyncClient) -> None:
    """A model of an app, an app of an agent, a group of an agent: 409 with the names of their users."""
    await made(admin, "/v1/llms", slug="used-model", model="gpt-4o")
    await made(admin, "/v1/apps", slug="used-app", llms=["used-model"])
    await made(admin, "/v1/groups", slug="used-group")
    await made(admin, "/v1/agents", slug="user", app="used-app", groups=["used-group"])
    for path, user in (("llms/used-model", "app used-app"), ("apps/used-app", "user"), ("groups/used-group", "user")):
        answer = await admin.delete(f"/v1/{path}")
        assert (answer.status_code, answer.json()["code"]) == (409, "object_in_use")
        assert user in answer.json()["detail"]


async def test_an_agent_of_the_settings_is_shown_and_not_changed(admin: httpx.AsyncClient) -> None:
    """The worker's own default agent is listed; a write says what to do instead."""
    shown = (await admin.get("/v1/agents/default")).json()
    assert (shown["is_setting"], shown["definition"]["model"]) == (True, "mock")
    refused = await admin.patch("/v1/agents/default", json={"name": "Mine"})
    assert (refused.status_code, refused.json()["code"]) == (409, "agent_of_settings")


async def test_users_see_only_their_agents_and_nothing_of_their_insides(
    server: GatewayServer, admin: httpx.AsyncClient
) -> None:
    """Without a shared group, or while it is off, an agent is not there for a user; prompts, settings and versions are
    shown to no user at all."""
    await made(admin, "/v1/groups", slug="staff")
    await made(admin, "/v1/llms", slug="staff-model", model="gpt-4o", base_url="https://llm.internal", api_key_env="K")
    await made(admin, "/v1/apps", slug="staff-app", llms=["staff-model"], tools=["payroll__*"])
    await made(admin, "/v1/agents", slug="for-staff", app="staff-app", groups=["staff"], system_prompt="SECRET PLAN")
    await made(admin, "/v1/agents", slug="for-all", model="gpt-4o")
    await made(admin, "/v1/agents", slug="switched-off", model="gpt-4o", is_active=False)
    inside = server.make_key(scopes=[Scope.AGENTS_USE], groups=["staff"])
    outside = server.make_key(scopes=[Scope.AGENTS_USE])
    async with server.client(inside) as member, server.client(outside) as stranger:
        mine = (await member.get("/v1/agents", params={"limit": 1000})).json()
        theirs = (await stranger.get("/v1/agents", params={"limit": 1000})).json()
        seen = {each["slug"] for each in theirs["items"]}
        assert seen >= {"for-all", "default"}
        assert seen.isdisjoint({"for-staff", "switched-off"})
        assert "for-staff" in {each["slug"] for each in mine["items"]}
        assert (await stranger.get("/v1/agents/for-staff")).status_code == 404
        for path in ("/v1/agents", "/v1/apps", "/v1/llms", "/v1/groups"):
            text = (await member.get(path, params={"limit": 1000})).text
            for internal in ("SECRET PLAN", "definition", "llm.internal", "payroll", "version", "updated_by"):
                assert internal not in text, (path, internal)
        for path, slug in (("/v1/apps", "staff-app"), ("/v1/llms", "staff-model"), ("/v1/groups", "staff")):
            assert (await member.get(f"{path}/{slug}")).status_code == 200
            assert (await stranger.get(f"{path}/{slug}")).status_code == 404
            assert slug not in (await stranger.get(path, params={"limit": 1000})).text


WRITES = [
    ("POST", "", {"slug": "new", "model": "m"}),
    ("PUT", "/mine", {"slug": "mine", "model": "m"}),
    ("PATCH", "/mine", {"name": "x"}),
    ("DELETE", "/mine", None),
    ("POST", "/mine/activate", None),
    ("POST", "/mine/deactivate", None),
    ("GET", "/mine/versions", None),
    ("POST", "/mine/rollback", {"version": 1}),
]


@pytest.mark.parametrize("plural", ["agents", "apps", "llms", "groups"])
async def test_every_write_needs_the_scope_admin(server: GatewayServer, plural: str) -> None:
    """Each write of each kind is 403 with every scope but admin, and 401 without a key."""
    key = server.make_key(scopes=[scope for scope in Scope if scope is not Scope.ADMIN])
    async with server.client(key) as user, server.client("") as nobody:
        for method, path, body in WRITES:
            if plural == "groups" and "activate" in path:
                continue
            url = f"/v1/{plural}{path}"
            assert (await user.request(method, url, json=body)).status_code == 403, (method, url)
            assert (await nobody.request(method, url, json=body)).status_code == 401, (method, url)
        assert (await nobody.get(f"/v1/{plural}")).status_code == 401


async def test_an_administrator_of_a_tenant_manages_its_own_namespace_alone(
    server: GatewayServer, admin: httpx.AsyncClient
) -> None:
    """It declares agents and groups there, within the apps that the operator gives it; others' objects are not there
    for it, and everybody's show it no insides."""
    await made(admin, "/v1/llms", slug="shared", model="gpt-4o")
    await made(admin, "/v1/apps", slug="acme-app", llms=["shared"], namespace="acme")
    await made(admin, "/v1/agents", slug="beta-agent", namespace="beta", model="gpt-4o", system_prompt="BETA")
    await made(admin, "/v1/agents", slug="everybodys", model="gpt-4o", system_prompt="OPERATOR")
    async with server.client(server.make_key(tenant="acme")) as acme:
        response = await made(acme, "/v1/agents", slug="acme-agent", app="acme-app", system_prompt="Ours")
        assert (response.json()["namespace"], response.json()["definition"]["namespace"]) == ("acme", "acme")
        listed = (await acme.get("/v1/agents", params={"limit": 1000})).json()
        assert "beta-agent" not in {each["slug"] for each in listed["items"]}
        assert (await acme.get("/v1/agents/everybodys")).status_code == 200
        assert "OPERATOR" not in (await acme.get("/v1/agents/everybodys")).text
        refused = [
            await acme.get("/v1/agents/beta-agent", params={"namespace": "beta"}),
            await acme.patch("/v1/agents/beta-agent", params={"namespace": "beta"}, json={"name": "x"}),
            await acme.post("/v1/agents", json={"slug": "x", "namespace": "beta", "app": "acme-app"}),
            await acme.post("/v1/agents", json={"slug": "unfenced", "model": "gpt-4o"}),
            await acme.patch("/v1/agents/acme-agent", json={"app": None, "model": "gpt-4o"}),
            await acme.post("/v1/llms", json={"slug": "spy", "model": "m", "api_key_env": "OPENAI_API_KEY"}),
            await acme.post("/v1/apps", json={"slug": "wide", "tools": ["*"]}),
            await acme.patch("/v1/apps/acme-app", json={"tools": ["*"]}),
        ]
        assert [each.status_code for each in refused] == [403] * len(refused)
        missing = [
            await acme.get("/v1/agents/beta-agent"),
            await acme.delete("/v1/agents/beta-agent"),
            await acme.patch("/v1/agents/everybodys", json={"name": "Mine"}),
            await acme.delete("/v1/agents/everybodys"),
        ]
        assert [each.status_code for each in missing] == [404] * len(missing)
        assert (await acme.delete("/v1/agents/acme-agent")).status_code == 204


async def test_a_key_of_an_app_declares_nothing(server: GatewayServer, admin: httpx.AsyncClient) -> None:
    """Even with the scope admin: it is 403, and it sees only its app's agents."""
    await made(admin, "/v1/llms", slug="kiosk-model", model="gpt-4o")
    await made(admin, "/v1/apps", slug="kiosk", llms=["kiosk-model"])
    await made(admin, "/v1/agents", slug="kiosk-agent", app="kiosk", system_prompt="KIOSK")
    async with server.client(server.make_key(app="kiosk")) as key:
        listed = (await key.get("/v1/agents")).json()
        assert [each["slug"] for each in listed["items"]] == ["kiosk-agent"]
        assert "KIOSK" not in (await key.get("/v1/agents/kiosk-agent")).text
        assert (await key.post("/v1/agents", json={"slug": "x", "model": "m"})).status_code == 403


async def test_two_writers_at_once_lose_nothing(admin: httpx.AsyncClient) -> None:
    """Ten patches of different keys at the same moment are all in the end result."""
    await made(admin, "/v1/agents", slug="busy", model="gpt-4o")
    names = ["max_tokens", "max_turns", "max_run_tokens", "max_parallel_tools", "max_retries"]
    patches = [admin.patch("/v1/agents/busy", json={"settings": {name: 7}}) for name in names]
    assert {each.status_code for each in await asyncio.gather(*patches)} == {200}
    shown = (await admin.get("/v1/agents/busy")).json()
    assert shown["definition"]["settings"] == dict.fromkeys(names, 7)
    assert shown["version"] == 1 + len(names)


async def test_an_administrator_of_a_tenant_does_not_widen_what_the_operator_gave_it(
    server: GatewayServer, admin: httpx.AsyncClient
) -> None:
    """An agent without an app, which only the operator may make, is neither changed nor switched on by the tenant; and
    no earlier version without an app comes back. Switching it off and deleting it are the tenant's right."""
    await made(admin, "/v1/llms", slug="given", model="gpt-4o")
    await made(admin, "/v1/apps", slug="given-app", llms=["given"], namespace="acme")
    await made(admin, "/v1/agents", slug="free", namespace="acme", model="gpt-4o", tools=["clock"])
    where = {"namespace": "acme"}
    async with server.client(server.make_key(tenant="acme")) as acme:
        assert (await acme.patch("/v1/agents/free", json={"tools": None})).status_code == 403
        assert (await acme.post("/v1/agents/free/deactivate")).status_code == 200
        assert (await acme.post("/v1/agents/free/activate")).status_code == 403
        fenced = await admin.patch(
            "/v1/agents/free", params=where, json={"app": "given-app", "model": None, "tools": []}
        )
        assert fenced.status_code == 200
        assert (await acme.patch("/v1/agents/free", json={"is_active": True})).status_code == 200
        assert (await acme.post("/v1/agents/free/rollback", json={"version": 1})).status_code == 403
        shown = await admin.get("/v1/agents/free", params=where)
        assert shown.json()["definition"]["app"] == "given-app"
        assert (await acme.delete("/v1/agents/free")).status_code == 204
        assert (await acme.post("/v1/agents/free/rollback", json={"version": 1})).status_code == 403


async def test_values_of_any_depth_are_refused_or_kept(admin: httpx.AsyncClient) -> None:
    """Nothing that a body nests makes the gateway fail, and what is too deep for others to read is not stored."""
    await made(admin, "/v1/agents", slug="deep", model="gpt-4o")
    for levels in (10, 50, 70, 300, *range(700, 1000, 20), 50_000):
        options = '{"a":' * levels + "1" + "}" * levels
        body = '{"settings": {"options": ' + options + "}}"
        headers = {"Content-Type": "application/merge-patch+json"}
        answer = await admin.patch("/v1/agents/deep", content=body, headers=headers)
        assert answer.status_code == 200 if levels < 60 else answer.status_code in (400, 422), levels
    assert (await admin.get("/v1/agents/deep")).status_code == 200
