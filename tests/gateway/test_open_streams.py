"""A stream lasts no longer than what its caller was let in with."""

from __future__ import annotations

import asyncio
import time

from tests.gateway.gateway_harness import WITHIN_S, GatewayServer
from worker.gateway.auth import LOCAL, Authenticator
from worker.gateway.caller import Caller, Scope
from worker.gateway.context import Gateway
from worker.gateway.open_streams import OpenStreams
from worker.settings.gateway import GatewaySettings


async def test_a_revoked_key_ends_its_streams(gateway_server: GatewayServer) -> None:
    """In order, with a last word; whoever has another key goes on."""
    secret = gateway_server.make_key([Scope.TASKS_READ])

    async def revoke(gateway: Gateway) -> None:
        await gateway.keys.revoke(secret.split("_")[1])

    async with gateway_server.client() as other, gateway_server.client(secret) as client:
        task = (await other.post("/v1/tasks", json={"prompt": "later", "delay_s": 86_400})).json()["id"]
        address = f"/v1/tasks/{task}/stream"
        async with other.stream("GET", address) as lasting, client.stream("GET", address) as stream:
            assert (stream.status_code, lasting.status_code) == (200, 200)
            gateway_server.do(revoke)
            async with asyncio.timeout(WITHIN_S):
                text = (await stream.aread()).decode()
            again = await client.get(address)
            await other.post(f"/v1/tasks/{task}/cancel")
            async with asyncio.timeout(WITHIN_S):
                rest = (await lasting.aread()).decode()

    assert text.endswith(": the key or token of this stream is no longer good\n\n")
    assert again.status_code == 401
    assert '"is_final":true' in rest


async def test_streams_of_a_caller_end_when_it_is_no_longer_good() -> None:
    """All of its streams, and nobody else's; they say why, and none is left behind."""
    good = {"a", "b"}
    looks = asyncio.Semaphore(0)

    def is_good(caller: Caller) -> bool:
        looks.release()
        return caller.id in good

    streams = OpenStreams(is_good, look_every_s=0.001)
    said: list[tuple[str, bytes]] = []
    begun = asyncio.Semaphore(0)

    async def send(caller: str) -> None:
        with streams.joined(Caller(id=caller)):
            try:
                begun.release()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                said.append((caller, streams.goodbye()))
                raise

    async with asyncio.timeout(WITHIN_S):
        tasks = {name: asyncio.create_task(send(name[0])) for name in ("a1", "a2", "b1")}
        for _ in tasks:
            await begun.acquire()
        for _ in range(6):  # a look at each of the two callers, again and again
            await looks.acquire()
        good.remove("a")
        await asyncio.wait([tasks["a1"], tasks["a2"]])
        assert [caller for caller, _ in said] == ["a", "a"]
        assert not tasks["b1"].done()
        await streams.end(WITHIN_S)
        await asyncio.wait([tasks["b1"]])

    assert b"no longer good" in said[0][1]
    assert b"shutting down" in said[2][1]


async def test_what_a_caller_came_with_expires(gateway_server: GatewayServer) -> None:
    """A token or a key that says when, a key that is not there; and `local`, once the gateway has a key."""
    soon = time.time() + 3600
    closed = Authenticator(GatewaySettings(auth="required"), gateway_server.gateway.keys)
    past = Caller(id="oidc:issuer:alice", expires_at=time.time() - 1)

    assert closed.is_good(Caller(id="oidc:issuer:alice", expires_at=soon))
    assert not closed.is_good(past)
    assert not closed.is_good(Caller(id="key:unknown"))
    assert not closed.is_good(LOCAL)
    assert Authenticator(GatewaySettings(auth="off"), gateway_server.gateway.keys).is_good(LOCAL)
    secret = gateway_server.make_key([Scope.TASKS_READ], expires_at=soon)
    caller = gateway_server.do(lambda gateway: gateway.keys.authenticate(secret))
    assert caller is not None
    assert caller.expires_at == soon
    assert closed.is_good(caller)
