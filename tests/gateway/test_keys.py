"""API keys: made, shown once, used, limited, revoked; over HTTP and with `shoal key`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from click.testing import CliRunner

from queue_backends import Backend, open_backend, register_backend
from queue_backends.memory import open_backend as open_memory
from queue_backends.redis import open_backend as open_redis
from tests.gateway.gateway_harness import WITHIN_S, GatewayServer
from worker.cli.key import key
from worker.gateway import keys_api
from worker.gateway.caller import Scope
from worker.gateway.keys import KEEP_ENDED_S, ApiKeys
from worker.log import mask_text
from worker.objects import BadObject, ObjectNotFound
from worker.settings.gateway import SCOPES


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def _memory() -> AsyncIterator[Backend]:
    register_backend("memory", open_memory)
    async with await open_backend("memory://") as backend:
        yield backend


async def test_a_key_opens_with_what_it_was_given() -> None:
    """The caller has the key's scopes, groups, tenant and app."""
    async with _memory() as backend, ApiKeys(backend.state) as keys:
        made, secret = await keys.create("web", [Scope.AGENTS_USE], ["staff"], "acme", "helpdesk")
        caller = await keys.authenticate(secret)
    assert caller is not None
    assert (caller.id, caller.name) == (f"key:{made.slug}", "web")
    assert (caller.scopes, caller.groups) == ({Scope.AGENTS_USE}, {"staff"})
    assert (caller.tenant, caller.app) == ("acme", "helpdesk")


async def test_the_secret_is_not_kept() -> None:
    """Whoever reads the store cannot use what is in it; neither repr nor log shows a key."""
    async with _memory() as backend, ApiKeys(backend.state) as keys:
        made, secret = await keys.create("web", [Scope.ADMIN])
        stored = b"".join([value async for _, value in backend.state.scan("objects/key/")])
    assert secret.rpartition("_")[2].encode() not in stored
    assert made.digest not in repr(made)
    assert secret.rpartition("_")[2] not in mask_text(f"somebody sent {secret} here")


@pytest.mark.parametrize("change", ["", "shoal_", "x", "one letter", "no secret", "other id", "long"])
async def test_what_is_not_quite_the_key_opens_nothing(change: str) -> None:
    """No part of a key will do, and no guess of it."""
    async with _memory() as backend, ApiKeys(backend.state) as keys:
        made, secret = await keys.create("web", [Scope.ADMIN])
        wrong = {
            "one letter": secret[:-1] + ("0" if secret[-1] != "0" else "1"),
            "no secret": f"shoal_{made.slug}_",
            "other id": secret.replace(made.slug, "aaaaaaaaaaaa"),
            "long": secret + "0" * 1000,
        }.get(change, change)
        assert await keys.authenticate(wrong) is None


async def test_a_key_ends() -> None:
    """After its time, and after it was revoked, it opens nothing; it is still shown, and forgotten much later."""
    clock = Clock()
    async with _memory() as backend, ApiKeys(backend.state, clock=clock) as keys:
        made, secret = await keys.create("a", [Scope.ADMIN], expires_at=clock.now + 60)
        other, other_secret = await keys.create("b", [Scope.ADMIN])
        clock.now += 61
        assert await keys.authenticate(secret) is None
        assert keys.state_of(made) == "expired"
        await keys.revoke(other.slug)
        assert await keys.authenticate(other_secret) is None
        assert {each.value.slug for each in keys.all()} == {made.slug, other.slug}
        clock.now += KEEP_ENDED_S + 1
        await keys.create("c", [Scope.ADMIN])
        assert [each.value.name for each in keys.all()] == ["c"]


async def test_another_gateway_hears_of_a_revocation() -> None:
    """What one process revokes is useless in all."""
    async with _memory() as backend, ApiKeys(backend.state) as here, ApiKeys(backend.state) as there:
        made, secret = await here.create("a", [Scope.ADMIN])
        async with asyncio.timeout(WITHIN_S):
            while await there.authenticate(secret) is None:
                await asyncio.sleep(0.01)
            await here.revoke(made.slug)
            while await there.authenticate(secret) is not None:
                await asyncio.sleep(0.01)


async def test_use_is_noted_coarsely() -> None:
    """Who looks for unused keys finds them; a busy key does not write with every request."""
    clock = Clock()
    async with _memory() as backend, ApiKeys(backend.state, clock=clock) as keys:
        made, secret = await keys.create("a", [Scope.ADMIN])
        assert await keys.last_used_at(made.slug) is None
        first = clock.now
        await keys.authenticate(secret)
        clock.now += 30
        await keys.authenticate(secret)
        assert await keys.last_used_at(made.slug) == pytest.approx(first, abs=1)
        clock.now += 600
        await keys.authenticate(secret)
        assert await keys.last_used_at(made.slug) == pytest.approx(clock.now, abs=1)


async def test_what_cannot_be_a_key_is_refused() -> None:
    """Names, scopes, slugs and times are checked."""
    async with _memory() as backend, ApiKeys(backend.state) as keys:
        for name, scopes, groups, expires_at in (
            (" ", [Scope.ADMIN], [], None),
            ("n" * 201, [Scope.ADMIN], [], None),
            ("a", [], [], None),
            ("a", [Scope.ADMIN], ["Not A Slug"], None),
            ("a", [Scope.ADMIN], [], time.time() - 1),
            ("a", [Scope.ADMIN], [], 1000 * time.time() + 3600),  # milliseconds, as scripts of browsers count
        ):
            with pytest.raises(BadObject):
                await keys.create(name, scopes, groups, expires_at=expires_at)
        with pytest.raises(BadObject):
            await keys.create("a", [Scope.ADMIN], requests_per_minute=-1)
        with pytest.raises(ObjectNotFound):
            await keys.revoke("nobody")


async def test_keys_over_http(gateway_server: GatewayServer) -> None:
    """Created once with its secret, listed without, revoked; then it opens nothing."""
    async with gateway_server.client() as client:
        answer = await client.post("/v1/keys", json={"name": "ci", "scopes": ["tasks.read"], "groups": ["staff"]})
        assert answer.status_code == 201
        made = answer.json()
        assert answer.headers["location"] == f"/v1/keys/{made['id']}"
        listed = (await client.get("/v1/keys")).json()["keys"]
        assert made["id"] in {each["id"] for each in listed}
        assert not any("key" in each for each in listed)
        assert made["key"] not in (await client.get("/v1/keys")).text
        async with gateway_server.client(key=made["key"]) as own:
            assert (await own.get("/v1/keys")).status_code == 403
            assert (await client.delete(f"/v1/keys/{made['id']}")).json()["state"] == "revoked"
            assert (await own.get("/v1/keys")).status_code == 401
        assert (await client.get("/v1/keys/nobody")).status_code == 404
        refused = await client.post("/v1/keys", json={"name": "ci", "scopes": ["everything"]})
        assert refused.status_code == 400
        assert (await client.post("/v1/keys", json={"name": "", "scopes": ["admin"]})).status_code == 422


async def test_an_administrator_of_a_tenant_stays_in_it(gateway_server: GatewayServer) -> None:
    """He neither sees nor makes keys of others, and cannot make one that is bound to nothing."""
    bound = gateway_server.make_key(["admin"], tenant="acme")
    other = gateway_server.make_key(["admin"], tenant="other")
    async with gateway_server.client(key=bound) as client:
        made = (await client.post("/v1/keys", json={"name": "mine", "scopes": ["admin"]})).json()
        assert made["tenant"] == "acme"
        refused = await client.post("/v1/keys", json={"name": "x", "scopes": ["admin"], "tenant": "other"})
        assert refused.status_code == 403
        assert {each["tenant"] for each in (await client.get("/v1/keys")).json()["keys"]} == {"acme"}
        assert (await client.get(f"/v1/keys/{other.split('_')[1]}")).status_code == 404
        assert (await client.delete(f"/v1/keys/{other.split('_')[1]}")).status_code == 404


async def test_an_administrator_of_a_tenant_leaves_room_for_others(
    gateway_server: GatewayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys are bounded in number, and those of one tenant more closely; other administrators can go on."""
    monkeypatch.setattr(keys_api, "MOST_OF_ONE", 2)
    wanted = {"name": "x", "scopes": ["tasks.read"]}
    async with gateway_server.client(key=gateway_server.make_key(["admin"], tenant="crowded")) as client:
        assert [(await client.post("/v1/keys", json=wanted)).status_code for _ in range(2)] == [201, 409]
    async with gateway_server.client() as client:
        assert (await client.post("/v1/keys", json={**wanted, "tenant": "crowded"})).status_code == 201


async def test_an_administrator_of_an_app_stays_in_it(gateway_server: GatewayServer) -> None:
    """A key of an app cannot make one that may use more."""
    bound = gateway_server.make_key(["admin"], app="helpdesk")
    async with gateway_server.client(key=bound) as client:
        assert (await client.post("/v1/keys", json={"name": "x", "scopes": ["admin"]})).status_code == 403
        own = await client.post("/v1/keys", json={"name": "x", "scopes": ["admin"], "app": "helpdesk"})
        assert own.status_code == 201
        assert {each["app"] for each in (await client.get("/v1/keys")).json()["keys"]} == {"helpdesk"}
        for path in ("/v1/ops/queue", "/v1/ops/dead", "/v1/ops/usage", "/v1/ops/workers", "/metrics"):
            assert (await client.get(path)).status_code == 403  # it is everybody's
        assert (await client.post("/v1/ops/dead/purge", json={"all": True})).status_code == 403


def test_settings_and_command_know_all_scopes() -> None:
    """A scope that somebody adds can be given."""
    assert set(SCOPES) == set(Scope)


def test_keys_by_command(queue_url: str) -> None:
    """`shoal key`: the key alone on stdout; list and show without it; revoke."""
    register_backend("redis", open_redis)
    runner = CliRunner()

    def shoal(*arguments: str) -> tuple[int, str]:
        outcome = runner.invoke(key, [*arguments, "--queue", queue_url])
        if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
            raise outcome.exception
        return outcome.exit_code, outcome.stdout

    code, secret = shoal("create", "ci", "--scope", "tasks.read", "--group", "staff", "--expires-in", "90d")
    assert code == 0
    key_id = secret.strip().split("_")[1]
    _, listed = shoal("list", "--json")
    assert (json.loads(listed)["id"], json.loads(listed)["scopes"]) == (key_id, ["tasks.read"])
    assert secret.strip().rpartition("_")[2] not in listed
    assert "staff" in shoal("show", key_id)[1]
    assert shoal("revoke", key_id)[1] == f"revoked {key_id} (ci)\n"
    assert json.loads(shoal("show", key_id, "--json")[1])["state"] == "revoked"
    with pytest.raises(ObjectNotFound):
        shoal("show", "nobody")


async def test_requests_of_a_key_are_limited(gateway_server: GatewayServer) -> None:
    """A key's own limit counts instead of the gateway's; the answer says when to try again."""
    limited = gateway_server.make_key(["ops.read"], requests_per_minute=3)
    async with gateway_server.client(key=limited) as client:
        answers = [await client.get("/metrics") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["ratelimit-limit"] == "3"
    assert int(answers[3].headers["retry-after"]) >= 1
    assert answers[3].json()["code"] == "too_many_requests"


async def test_wrong_keys_are_damped_and_right_ones_are_not(gateway_server: GatewayServer) -> None:
    """Who guesses is told to wait; whoever shares his address and has a key goes on."""
    async with httpx.AsyncClient(base_url=gateway_server.url, timeout=WITHIN_S) as client:
        wrong = {"Authorization": "Bearer shoal_aaaaaaaaaaaa_" + "0" * 64}
        statuses = {(await client.get("/v1/keys", headers=wrong)).status_code for _ in range(40)}
        right = {"Authorization": f"Bearer {gateway_server.admin_key}"}
        assert statuses == {401, 429}
        assert (await client.get("/v1/keys", headers=right)).status_code == 200
