"""Who is asked for a key, where it may be, and what pages of others can do to a gateway that asks for none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers

from queue_backends import open_backend, register_backend
from queue_backends.memory import open_backend as open_memory
from tests.gateway.gateway_harness import WITHIN_S, GatewayServer, gateway_settings
from tests.gateway.probe_operations import OPERATIONS
from worker.errors import BadSetting
from worker.gateway.assembly import open_gateway
from worker.gateway.auth import Authenticator
from worker.gateway.caller import Scope
from worker.gateway.keys import ApiKey, ApiKeys
from worker.gateway.peers import Peers
from worker.gateway.running import check_exposure
from worker.objects import ObjectStore
from worker.settings.gateway import GatewaySettings

FOREIGN = {"Origin": "https://evil.example.com"}


def _server(**gateway: Any) -> GatewayServer:
    settings = gateway_settings(gateway=gateway)
    return GatewayServer(settings, with_worker=False, operations=OPERATIONS)


@pytest.fixture(scope="module")
def closed() -> Iterator[GatewayServer]:
    """A gateway that asks for keys."""
    with _server() as server:
        yield server


@pytest.fixture(scope="module")
def opened() -> Iterator[GatewayServer]:
    """A gateway that asks for none."""
    with _server(auth="off") as server:
        yield server


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/t/whoami", {"Authorization": "Bearer KEY"}, 200),
        ("/t/whoami", {"authorization": "bearer   KEY"}, 200),
        ("/t/whoami", {"x-api-key": "KEY"}, 200),
        ("/t/whoami", {"Authorization": "KEY"}, 401),
        ("/t/whoami", {"Authorization": "Basic KEY"}, 401),
        ("/t/whoami?token=KEY", {}, 401),
        ("/t/whoami", {"Cookie": "token=KEY"}, 401),
        ("/api/whoami", {"Authorization": "Whatever KEY"}, 200),
        ("/api/whoami?token=KEY", {}, 200),
        ("/api/whoami?token=wrong", {"Authorization": "Bearer KEY"}, 401),
        ("/api/whoami", {}, 401),
    ],
)
async def test_where_a_key_may_be(closed: GatewayServer, path: str, headers: dict[str, str], status: int) -> None:
    """In a header; in the URL on Studio's paths alone, where browsers' event streams need it."""
    key = closed.make_key([Scope.TASKS_READ])
    async with closed.client(key="") as client:
        sent = {name: value.replace("KEY", key) for name, value in headers.items()}
        answer = await client.get(path.replace("KEY", key), headers=sent)
    assert answer.status_code in ({status, 429} if status == 401 else {status})
    assert key not in answer.text


async def test_scopes(closed: GatewayServer) -> None:
    """Each scope opens what needs it and nothing else; `admin` opens everything."""
    for scope, status in ((Scope.TASKS_READ, 200), (Scope.TASKS_WRITE, 403), (Scope.OPS_READ, 403), (Scope.ADMIN, 200)):
        async with closed.client(key=closed.make_key([scope])) as client:
            assert (await client.get("/t/whoami")).status_code == status


async def test_an_open_gateway_takes_everybody_on_this_machine(opened: GatewayServer) -> None:
    """With all scopes; a key that somebody sends all the same does not matter."""
    async with opened.client(key="") as client:
        caller = (await client.get("/t/whoami")).json()
        posted = await client.post("/t/whoami")
        keyed = await client.get("/t/whoami", headers={"x-api-key": "not-needed"})
    assert (caller["id"], set(caller["scopes"])) == ("local", {scope.value for scope in Scope})
    assert (posted.status_code, keyed.status_code) == (200, 200)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"Host": "evil.example.com"}, 421),
        ("GET", {"Host": "127.0.0.1.evil.example.com"}, 421),
        ("GET", {"Host": "localhost.evil.example.com:8000"}, 421),
        ("GET", {"Host": "evil-localhost"}, 421),
        ("GET", {"Host": ""}, 421),
        ("GET", {"Host": "localhost:1234"}, 200),
        ("GET", {"Host": "[::1]:1234"}, 200),
        ("GET", {"Host": "shoal.localhost"}, 200),
        ("POST", FOREIGN, 403),
        ("POST", {"Origin": "null"}, 403),
        ("POST", {"Origin": "http://127.0.0.1:1"}, 403),
        ("POST", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-site"}, 403),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("POST", {"Sec-Fetch-Site": "none"}, 200),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ("GET", {"X-Forwarded-For": "203.0.113.9"}, 403),
        ("GET", {"Forwarded": "for=203.0.113.9"}, 403),
    ],
)
async def test_pages_of_others_cannot_use_an_open_gateway(
    opened: GatewayServer, method: str, headers: dict[str, str], status: int
) -> None:
    """Neither by a name that leads here (DNS rebinding), nor by a form or script (CSRF), nor through a proxy."""
    async with opened.client(key="") as client:
        answer = await client.request(method, "/t/whoami", headers=headers)
    assert answer.status_code == status


async def test_own_pages_can(opened: GatewayServer) -> None:
    """What browsers send from a page of the gateway itself passes."""
    async with opened.client(key="") as client:
        own = {"Origin": opened.url, "Sec-Fetch-Site": "same-origin"}
        assert (await client.post("/t/whoami", headers=own)).status_code == 200


async def test_a_gateway_with_keys_needs_no_such_guard(closed: GatewayServer) -> None:
    """A key is never sent by a browser by itself; any name and origin may be used with one."""
    async with closed.client() as client:
        for headers in (FOREIGN, {"Host": "gateway.example.com"}, {"Sec-Fetch-Site": "cross-site"}):
            assert (await client.post("/t/whoami", headers=headers)).status_code == 200


async def test_host_names_can_be_fixed() -> None:
    """With `allowed_hosts`, no other name is served, keys or not."""
    with _server(allowed_hosts=("gateway.example.com",)) as server:
        async with server.client() as client:
            assert (await client.get("/t/whoami")).status_code == 421
            assert (await client.get("/healthz")).status_code == 200  # probes name the machine's address
            good = await client.get("/t/whoami", headers={"Host": "gateway.example.com:443"})
            assert good.status_code == 200


async def test_the_first_key_closes_an_open_gateway() -> None:
    """From then on everybody needs one, and it stays so when that key is revoked."""
    with _server(auth="auto") as server:
        async with server.client(key="") as client:
            assert (await client.get("/t/whoami")).status_code == 200
            key = server.make_key([Scope.ADMIN])
            assert (await client.get("/t/whoami")).status_code == 401
            async with server.client(key=key) as owner:
                assert (await owner.get("/t/whoami")).status_code == 200
            server.do(lambda gateway: gateway.keys.revoke(key.split("_")[1]))
            assert (await client.get("/t/whoami")).status_code == 401


async def test_a_gateway_that_was_closed_stays_closed() -> None:
    """Also when no key is known any more, as after the state was lost."""
    register_backend("memory", open_memory)
    async with await open_backend("memory://") as backend, ApiKeys(backend.state) as keys:
        who = Authenticator(GatewaySettings(), keys)
        made, _ = await keys.create("first", [Scope.ADMIN])
        async with ObjectStore(backend.state, "key", ApiKey) as store:
            assert not who.is_open
            await store.delete(made.slug)
        async with asyncio.timeout(WITHIN_S):
            while keys.are_there:
                await asyncio.sleep(0.01)
        assert not who.is_open


async def test_cors_is_off_by_default(closed: GatewayServer) -> None:
    """No page of another origin may read an answer or ask whether it may call."""
    async with closed.client() as client:
        preflight = await client.options("/t/echo", headers={**FOREIGN, "Access-Control-Request-Method": "POST"})
        answer = await client.get("/t/whoami", headers=FOREIGN)
    for headers in (preflight.headers, answer.headers):
        assert not any(name.startswith("access-control") for name in headers)


async def test_cors_for_named_origins() -> None:
    """A page of a named origin may call with its key; others may not; a browser is asked for no cookies."""
    origin = "https://app.example.com"
    with _server(cors_origins=(origin,)) as server:
        async with server.client() as client:
            ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
            preflight = await client.options("/t/echo", headers={"Origin": origin, **ask})
            refused = await client.options("/t/echo", headers={**FOREIGN, **ask})
            answer = await client.get("/t/whoami", headers={"Origin": origin})
            failed = await client.get("/t/raise/fault", headers={"Origin": origin})
    assert preflight.headers["access-control-allow-origin"] == origin
    assert "access-control-allow-credentials" not in preflight.headers
    assert "access-control-allow-origin" not in refused.headers
    assert answer.headers["access-control-allow-origin"] == origin
    assert failed.headers["access-control-allow-origin"] == origin


async def test_proxies_are_believed_if_they_are_trusted(closed: GatewayServer) -> None:
    """The client is the last address that no trusted proxy has; what a client writes itself counts for nothing."""
    chain = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9, 127.0.0.1", "X-Forwarded-Proto": "https"}
    async with closed.client() as client:
        plain = (await client.get("/t/whoami", headers=chain)).json()
    with _server(trusted_proxies=("127.0.0.0/8",)) as server:
        async with server.client() as client:
            behind = (await client.get("/t/whoami", headers=chain)).json()
            garbage = (await client.get("/t/whoami", headers={"X-Forwarded-For": "no address"})).json()
    assert (plain["client"], plain["scheme"]) == ("127.0.0.1", "http")
    assert (behind["client"], behind["scheme"]) == ("203.0.113.9", "https")
    assert garbage["client"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("10.1.2.3", "203.0.113.9"),
        ("::ffff:10.1.2.3", "203.0.113.9"),  # how it looks where `::` is listened on
        ("fd00::7", "203.0.113.9"),
        ("10.2.0.1", "10.2.0.1"),
        ("::ffff:10.2.0.1", "::ffff:10.2.0.1"),
    ],
)
def test_a_trusted_proxy_is_known_by_any_form_of_its_address(peer: str, client: str) -> None:
    """By its address in the networks of the settings, IPv4 in IPv6 too; everybody else is the client."""
    scope: dict[str, Any] = {"client": (peer, 1234), "scheme": "http"}
    peers = Peers(["10.1.0.0/16", "fd00::/8"])
    assert peers.settle(scope, Headers({"x-forwarded-for": "203.0.113.9"})) == client


@pytest.mark.parametrize(
    ("gateway", "has_key", "is_refused"),
    [
        ({"host": "127.0.0.1"}, False, False),
        ({"host": "::1"}, False, False),
        ({"host": "localhost"}, False, False),
        ({"host": "0.0.0.0"}, False, True),
        ({"host": "::"}, False, True),
        ({"host": "gateway.example.com"}, False, True),
        ({"host": "0.0.0.0"}, True, False),
        ({"host": "0.0.0.0", "auth": "off"}, True, True),
        ({"host": "0.0.0.0", "auth": "required"}, False, False),
        ({"host": "0.0.0.0", "oidc_issuer": "https://id.example.com", "oidc_audience": ("a",)}, False, False),
        ({"host": "127.0.0.1", "auth": "off"}, True, False),
    ],
)
async def test_others_reach_no_gateway_that_asks_for_no_key(
    gateway: dict[str, Any], has_key: bool, is_refused: bool
) -> None:
    """It refuses to start, and says what to do."""
    register_backend("memory", open_memory)
    settings = gateway_settings(gateway={"auth": "auto", **gateway})
    async with await open_backend("memory://") as backend, open_gateway(settings, backend) as parts:
        if has_key:
            await parts.keys.create("a", [Scope.ADMIN])
        if not is_refused:
            check_exposure(parts)
            return
        with pytest.raises(BadSetting, match="can be reached by others"):
            check_exposure(parts)


@pytest.mark.parametrize(
    "settings",
    [
        {"cors_origins": ("*",)},
        {"cors_origins": ("https://app.example.com/path",)},
        {"cors_origins": ("app.example.com",)},
        {"trusted_proxies": ("everybody",)},
        {"tls_cert": "server.pem"},
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    """Told at start, with the value and what to write instead."""
    with pytest.raises(BadSetting):
        GatewaySettings(**settings).check()


async def test_tls(tmp_path: Any) -> None:
    """With certificate and key, the gateway speaks HTTPS."""
    from tests.certificates import self_signed

    certificate, key = self_signed(tmp_path)
    with _server(tls_cert=certificate, tls_key=key) as server:
        import ssl

        context = ssl.create_default_context(cafile=certificate)
        async with httpx.AsyncClient(verify=context, timeout=WITHIN_S) as client:
            answer = await client.get(f"{server.url}/healthz")
    assert server.url.startswith("https://")
    assert answer.text == "ok"
