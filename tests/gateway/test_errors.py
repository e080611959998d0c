"""What the edge of the gateway does with requests that cannot be done, in the form that each API's clients read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway.gateway_harness import WITHIN_S, GatewayServer, gateway_settings
from tests.gateway.probe_operations import OPERATIONS, RAISED
from worker.gateway.decoding import decode_body
from worker.gateway.headers import with_safe_headers
from worker.gateway.problem import Problem


@pytest.fixture(scope="module")
def server() -> Iterator[GatewayServer]:
    """A gateway with operations that fail on purpose."""
    settings = gateway_settings(gateway={"max_body_bytes": 4096, "body_timeout_s": 0.3})
    with GatewayServer(settings, with_worker=False, operations=OPERATIONS) as running:
        yield running


async def test_health_needs_no_key(server: GatewayServer) -> None:
    """Probes carry no credential."""
    async with server.client(key="") as client:
        assert (await client.get("/healthz")).text == "ok"
        assert (await client.get("/readyz")).text == "ready"


@pytest.mark.parametrize("name", sorted(RAISED))
async def test_errors_of_the_packages_have_their_status(server: GatewayServer, name: str) -> None:
    """A caller can tell what to do from status and code; those that pass say when to try again."""
    error, status = RAISED[name]
    async with server.client() as client:
        answer = await client.get(f"/t/raise/{name}")
    told = answer.json()
    assert (answer.status_code, told["status"]) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert told["request_id"] == answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    if status != 500:
        assert told["code"]
        assert name == "provider" or told["detail"] == str(error)


async def test_faults_of_ours_tell_nothing(server: GatewayServer) -> None:
    """Neither the reason of a fault nor a secret in an error's text leaves the gateway."""
    async with server.client() as client:
        fault = await client.get("/t/raise/fault")
        masked = await client.get("/t/raise/provider")
    assert "hunter2" not in fault.text
    assert "RuntimeError" not in fault.text
    assert "sk-abcdefghijklmnop" not in masked.text


async def test_each_api_has_its_form(server: GatewayServer) -> None:
    """The clients of three vendors find status, type and text where they look for them."""
    async with server.client() as client:
        studio = (await client.get("/api/raise/problem")).json()
        openai = (await client.get("/v1/chat/raise/no_agent")).json()
        anthropic = (await client.get("/v1/messages/raise/overloaded")).json()
        other = (await client.get("/v1/chat/raise/full", headers={"anthropic-version": "2023-06-01"})).json()
    assert studio == {"errors": [{"title": "I'm a Teapot", "detail": "short and stout"}]}
    assert openai["error"] == {
        "message": "no such agent",
        "type": "not_found_error",
        "param": None,
        "code": "agent_not_found",
    }
    assert anthropic["error"] == {"type": "overloaded_error", "message": "too much"}
    assert other["error"]["type"] == "rate_limit_error"


async def test_no_credential_in_each_form(server: GatewayServer) -> None:
    """401 comes with a challenge, and as the clients of each API expect it."""
    async with server.client(key="") as client:
        problem = await client.get("/t/whoami")
        studio = await client.get("/api/whoami")
        openai = await client.get("/v1/chat/raise/full")
        anthropic = await client.get("/v1/messages/raise/full")
    assert {each.status_code for each in (problem, studio, openai, anthropic)} == {401}
    assert problem.headers["www-authenticate"].startswith("Bearer")
    assert studio.json() == {"error": "Unauthorized"}
    assert openai.json()["error"]["type"] == "authentication_error"
    assert anthropic.json()["error"]["type"] == "authentication_error"


async def test_an_unknown_path_is_told_in_the_form_of_its_api(server: GatewayServer) -> None:
    """404 has the form that clients of the path's API read."""
    async with server.client() as client:
        assert (await client.get("/v1/nothing")).json()["code"] == "not_found"
        assert (await client.get("/api/nothing")).json()["errors"][0]["title"] == "Not Found"
        assert (await client.get("/v1/chat/nothing")).json()["error"]["type"] == "not_found_error"
        assert (await client.get("/v1/messages/nothing")).json()["type"] == "error"
        assert (await client.get("/t/whoami/")).status_code == 404


async def test_methods(server: GatewayServer) -> None:
    """What a path does not do is told with what it does; HEAD is GET without its body; OPTIONS needs no key."""
    async with server.client() as client:
        wrong = await client.delete("/t/whoami")
        head = await client.head("/t/whoami")
        options = await client.options("/t/made")
        stream = await client.head("/t/stream")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 0
    assert (options.status_code, options.headers["allow"]) == (204, "DELETE, OPTIONS, POST")
    assert stream.status_code == 405


@pytest.mark.parametrize("name", ["%00", "a%00b", 1025 * "a"])
async def test_names_that_nothing_can_have(server: GatewayServer, name: str) -> None:
    """In a path, they are nothing that exists; no operation sees them."""
    async with server.client() as client:
        answer = await client.get(f"/t/raise/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_answers_with_a_status_of_their_own(server: GatewayServer) -> None:
    """Created with a location; no content without a body."""
    async with server.client() as client:
        made = await client.post("/t/made")
        gone = await client.delete("/t/made")
    assert (made.status_code, made.headers["location"], made.json()) == (201, "/t/1", {"id": 1})
    assert (gone.status_code, gone.content) == (204, b"")


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"text": "a"}', {"content-type": "application/json"}, 200),
        (b'{"text": "a"}', {"content-type": "application/json; charset=utf-8"}, 200),
        (b'{"text": "a"}', {}, 415),
        (b'{"text": "a"}', {"content-type": "text/plain"}, 415),
        (b"text=a", {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b"", {"content-type": "application/json"}, 400),
        (b"{", {"content-type": "application/json"}, 400),
        (b'{"text": 1}', {"content-type": "application/json"}, 400),
        (b'{"number": 1}', {"content-type": "application/json"}, 400),
        (b'{"text": "\xff"}', {"content-type": "application/json"}, 400),
        (b"[" * 4000, {"content-type": "application/json"}, 400),
        (json.dumps({"text": "a" * 5000}).encode(), {"content-type": "application/json"}, 413),
    ],
)
async def test_bodies(server: GatewayServer, body: bytes, headers: dict[str, str], status: int) -> None:
    """Only JSON of the right shape and size is taken."""
    async with server.client() as client:
        answer = await client.post("/t/echo", content=body, headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        ('{"a": ' + 127 * "[" + 127 * "]" + "}", True),
        ('{"a": ' + 128 * "[" + 128 * "]" + "}", False),
        ('{"a": ' + 500 * '{"b":' + "1" + 500 * "}" + "}", False),
        ('{"a": [' + 500 * "[]," + "[]]}", True),
        ('{"a": "' + 500 * '[{\\"' + '"}', True),
    ],
)
def test_bodies_are_nested_so_deeply_and_no_deeper(body: str, fits: bool) -> None:
    """What can just be read could not be passed on. Brackets in texts, and side by side, count for nothing."""
    if fits:
        assert "a" in decode_body(body.encode(), dict[str, Any])
    else:
        with pytest.raises(Problem, match="nested deeper than 128 levels"):
            decode_body(body.encode(), dict[str, Any])


async def test_a_body_without_length_is_bounded_too(server: GatewayServer) -> None:
    """Who sends pieces without end is stopped; an operation may have a bound of its own."""

    async def pieces() -> object:
        yield b'{"text": "'
        for _ in range(200):
            yield b"a" * 1000

    async with server.client() as client:
        endless = await client.post("/t/echo", content=pieces(), headers={"content-type": "application/json"})
        small = await client.post("/t/small", json={"text": "a" * 100})
    assert endless.status_code == 413
    assert small.status_code == 413


async def test_a_body_that_does_not_come_is_not_waited_for(server: GatewayServer) -> None:
    """A client that announces a body and sends none is told so, and its connection is closed."""
    port = int(server.url.rpartition(":")[2])
    async with asyncio.timeout(WITHIN_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /t/echo HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.admin_key}\r\n"
        writer.write(f"{head}content-type: application/json\r\ncontent-length: 50\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer


async def test_queries(server: GatewayServer) -> None:
    """Parameters are typed; in our own API an unknown one is a mistake, in a vendor's it is not."""
    async with server.client() as client:
        good = await client.get("/t/query?limit=3&flag=true&names=a,b&names=c&ratio=0.5")
        empty = await client.get("/t/query?limit=")
        wrong = [await client.get(f"/t/query?{text}") for text in ("limit=many", "limit=1&limit=2", "limt=3")]
        vendor = await client.get("/api/query?limit=3&beta=true")
        endless = await client.get("/api/query?" + 8193 * "a")
    assert good.json() == {"limit": 3, "flag": True, "names": ["a", "b", "c"], "ratio": 0.5}
    assert empty.json()["limit"] == 10
    assert {answer.status_code for answer in wrong} == {400}
    assert "limt" in wrong[2].json()["detail"]
    assert vendor.json()["limit"] == 3
    assert endless.status_code == 400


async def test_a_key_in_the_wrong_place_is_not_repeated(server: GatewayServer) -> None:
    """Whatever error tells of it: a name of a parameter, of a field, or a path."""
    key = "shoal_abcdefgh2345_" + 32 * "5e"
    async with server.client() as client:
        answers = [
            await client.get(f"/t/query?{key}=1"),
            await client.get(f"/api/{key}"),
            await client.post("/t/echo", json={"text": "", "number": key}),
            await client.get(f"/v1/{key}"),
        ]
    assert all(answer.status_code in (400, 404) and 8 * "5e" not in answer.text for answer in answers)
    assert "[masked]" in answers[0].text


async def test_answers_cannot_be_misused_by_browsers(server: GatewayServer) -> None:
    """Every answer, errors too: no sniffing, no framing, no caching, no referrer, no scripts; and no word of the
    server's software."""
    async with server.client() as client:
        for path in ("/t/whoami", "/t/nothing", "/t/raise/fault", "/healthz"):
            headers = (await client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cache-control"] == "no-store"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["x-request-id"].startswith("req_")
            assert "server" not in headers
            assert "access-control-allow-origin" not in headers


def test_what_an_answer_says_itself_is_left_to_it() -> None:
    """No header of ours beside its own, and only pages may load anything."""
    own = [(b"cache-control", b"max-age=60"), (b"content-type", b"text/html; charset=utf-8")]
    page = with_safe_headers(own, is_shared=False)
    names = [name for name, _ in page]
    assert len(names) == len(set(names))
    assert dict(page)[b"cache-control"] == b"max-age=60"
    assert b"script-src 'self'" in dict(page)[b"content-security-policy"]
    assert b"script-src" not in dict(with_safe_headers([], is_shared=False))[b"content-security-policy"]


async def test_what_is_counted(server: GatewayServer) -> None:
    """Requests by operation, not by path, so that nobody can make the page grow."""
    async with server.client() as client:
        for name in ("full", "away"):
            await client.get(f"/t/raise/{name}")
        await client.get("/t/nothing/at/all")
        text = (await client.get("/metrics")).text
    assert 'shoal_gateway_requests_total{operation="GET /t/raise/{name}",status="503"}' in text
    assert 'operation="unknown",status="404"' in text
    assert "/t/nothing" not in text


async def test_a_gateway_without_queue_is_not_ready(server: GatewayServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alive all the same: a restart would not bring the queue back."""

    async def away() -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(server.gateway.backend.queue, "ping", away)
    async with server.client(key="") as client:
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200
