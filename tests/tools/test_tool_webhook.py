"""Webhook tools against a real HTTP server: ark's requests and ark's texts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from providers.messages import ToolOutcome
from providers.transport import Transport
from tests.tools.tool_servers import Serve, call
from worker.tools import WebhookTool
from worker.tools.catalogue import ToolCatalogue
from worker.tools.webhook import Webhook


async def answer(http: Transport, arguments: str, environ: dict[str, str] | None = None, **config: Any) -> ToolOutcome:
    tool = Webhook(WebhookTool(name="hook", **config), http, environ=environ or {})
    return await call(ToolCatalogue(tools=[tool]), "hook", arguments)


async def echo(request: web.Request) -> web.Response:
    kind = request.headers.get("Content-Type", "none")
    return web.Response(text=f"{request.method} {request.path} {kind} {await request.text()}")


@pytest.mark.parametrize("method", ["", "post", "PUT"])
async def test_arguments_are_the_json_body(http: Transport, serve: Serve, method: str) -> None:
    """The method is upper-cased, POST by default; the answer's text is the result."""
    url = await serve(echo)

    outcome = await answer(http, '{"q": "ü"}', url=f"{url}/x", method=method)

    assert outcome.content == f'{method.upper() or "POST"} /x application/json {{"q":"ü"}}'
    assert not outcome.is_error


async def test_get_sends_neither_body_nor_arguments(http: Transport, serve: Serve) -> None:
    """As ark does."""
    url = await serve(echo)

    outcome = await answer(http, '{"q": 1}', url=f"{url}/x", method="get")

    assert outcome.content.strip() == "GET /x none"


async def test_any_2xx_is_a_success(http: Transport, serve: Serve) -> None:
    """A 201 is as good as a 200."""

    async def created(_: web.Request) -> web.Response:
        return web.Response(status=201, text="made")

    outcome = await answer(http, "{}", url=await serve(created))

    assert (outcome.content, outcome.is_error) == ("made", False)


async def test_other_statuses_are_told_in_arks_words(http: Transport, serve: Serve) -> None:
    """The model reads the code and what the server said."""

    async def gone(_: web.Request) -> web.Response:
        return web.Response(status=410, text="sold out")

    outcome = await answer(http, "{}", url=await serve(gone))

    assert (outcome.content, outcome.is_error) == ('webhook tool "hook": server returned 410: sold out', True)


async def test_an_unreachable_server_is_told_in_arks_words(http: Transport) -> None:
    """Port 9 of this machine has no server."""
    outcome = await answer(http, "{}", url="http://127.0.0.1:9/x")

    assert outcome.is_error
    assert outcome.content.startswith('webhook tool "hook": request failed: ')


async def test_secret_headers_are_sent_and_never_told(http: Transport, serve: Serve) -> None:
    """Even a server that gives the header back does not show it to the model."""

    async def indiscreet(request: web.Request) -> web.Response:
        return web.Response(status=500, text=f"got {request.headers['Authorization']}")

    outcome = await answer(
        http,
        "{}",
        url=await serve(indiscreet),
        headers_env={"Authorization": "HOOK_TOKEN"},
        environ={"HOOK_TOKEN": "Bearer s3cret-value"},
    )

    assert outcome.content == 'webhook tool "hook": server returned 500: got [redacted]'


async def test_a_missing_secret_is_told_by_its_name(http: Transport) -> None:
    """The request is not sent without what it needs."""
    outcome = await answer(http, "{}", url="http://127.0.0.1:9/x", headers_env={"X-Key": "HOOK_KEY"})

    assert 'env var "HOOK_KEY" for header X-Key is not set or empty' in outcome.content


async def test_a_slow_server_is_given_up(http: Transport, serve: Serve) -> None:
    """The model learns that the request may have taken effect all the same."""
    never = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    outcome = await answer(http, "{}", url=await serve(hang), timeout_s=0.05)
    never.set()

    assert outcome.content == (
        'tool "hook" gave no answer within 0.05 s; the request was broken off, but it may have taken effect'
    )


async def test_a_cancelled_run_breaks_the_request_off(http: Transport) -> None:
    """The server sees the connection close."""
    arrived, broken_off = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        arrived.set()
        await reader.read()
        broken_off.set()
        writer.close()

    async with asyncio.timeout(10), await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        running = asyncio.create_task(answer(http, "{}", url=f"http://127.0.0.1:{port}/"))
        await arrived.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await broken_off.wait()
