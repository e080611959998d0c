"""Routes over real HTTP: two vendors' servers, each with its own protocol and key."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from providers.replay_server import Ending, ReplayServer, Reply, json_error
from queue_backends import Backend, CallOutcome
from tests.routing.conftest import WorkerFactory
from tests.routing.targets import LIMIT_S, calls_of, ended, shown, switches

RECORDINGS = Path(__file__).parents[1] / "providers" / "recordings"
BUSY = json_error(529, b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}')


def recorded(vendor: str, name: str, ending: Ending = Ending.PROPER, frames: int | None = None) -> Reply:
    """A vendor's answer as it came over the wire; of `frames`, only so many."""
    found = re.findall(rb".+?\n\n", (RECORDINGS / vendor / f"{name}.sse").read_bytes(), flags=re.DOTALL)
    return Reply(frames=tuple(found[:frames]), ending=ending)


def answer_of(vendor: str, name: str) -> str:
    """The text of a recorded answer."""
    expected = msgspec.json.decode((RECORDINGS / vendor / "expected.json").read_bytes())
    parts = expected[name]["message"]["parts"]
    return "".join(part["text"] for part in parts if part["type"] == "text")


def anthropic(server: ReplayServer, **fields: Any) -> dict[str, Any]:
    """A target at a server that speaks Anthropic's protocol."""
    return {"model": "claude-sonnet-4-5", "base_url": server.url, "api_key_env": "KEY_A", "max_retries": 0, **fields}


def openai(server: ReplayServer, **fields: Any) -> dict[str, Any]:
    """A target at a server that speaks OpenAI's."""
    return {"model": "gpt-4.1-mini", "base_url": f"{server.url}/v1", "api_key_env": "KEY_B", "max_retries": 0, **fields}


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_A", "key-of-a")
    monkeypatch.setenv("KEY_B", "key-of-b")


async def test_a_conversation_goes_on_at_another_vendor(routed: WorkerFactory, backend: Backend) -> None:
    """The first turn, with reasoning and a tool call, is answered by one vendor; the second by another, who is told of
    the call and its outcome, not of the reasoning, and is given its own key alone."""
    first = [recorded("anthropic", "thinking_tool_call"), BUSY]
    async with (
        ReplayServer(first) as a,
        ReplayServer([recorded("openai", "text")]) as b,
        routed({"main": [anthropic(a), openai(b)]}) as (fleet, _),
    ):
        result, chunks = await ended(await fleet.submit("How is the weather in Lisbon?"))
    assert result.error == ""
    assert result.output == answer_of("openai", "text")
    assert shown(chunks).endswith(result.output)
    assert switches(chunks) == [("anthropic/claude-sonnet-4-5", "openai/gpt-4.1-mini", "overloaded")]
    assert [request.headers["x-api-key"] for request in a.requests] == ["key-of-a", "key-of-a"]
    assert [request.headers["authorization"] for request in b.requests] == ["Bearer key-of-b"]
    sent = b.requests[0].body
    assert b"get_weather" in sent
    assert b"The user wants" not in sent
    assert b"key-of-a" not in sent
    records = await calls_of(backend, result.task_id)
    assert [(record.provider, record.outcome) for record in records] == [
        ("anthropic", CallOutcome.COMPLETED),
        ("anthropic", CallOutcome.FAILED),
        ("openai", CallOutcome.COMPLETED),
    ]
    assert all(record.cost_usd is not None for record in records if record.outcome is CallOutcome.COMPLETED)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (json_error(429, b'{"error":{"type":"rate_limit_error"}}', {"retry-after": "30"}), "rate_limited"),
        (json_error(401, b'{"error":{"type":"authentication_error"}}'), "authentication_failed"),
        (
            json_error(400, b'{"error":{"type":"invalid_request_error","message":"prompt is too long"}}'),
            "context_too_long",
        ),
        (json_error(500, b"<html>oops</html>"), "unavailable"),
        (Reply(frames=(b"<html>welcome</html>",), content_type="text/html"), "bad_response"),
        (recorded("anthropic", "text", Ending.CUT, 4), "stream_broken"),
    ],
)
async def test_what_a_vendor_says_decides(routed: WorkerFactory, reply: Reply, reason: str) -> None:
    """Each way to fail leads on, at once: with all the adapter's retries left, nobody waits 30 seconds for a limit."""
    max_retries = 0 if reason == "unavailable" else 3
    async with (
        ReplayServer([reply]) as a,
        ReplayServer([recorded("openai", "text")]) as b,
        routed({"main": [anthropic(a, max_retries=max_retries), openai(b)]}) as (fleet, _),
    ):
        result, chunks = await ended(await fleet.submit("hi"))
    assert result.output == shown(chunks) == answer_of("openai", "text")
    assert [switch[2] for switch in switches(chunks)] == [reason]
    assert [request.method for request in b.requests].count("POST") == 1  # the other may be about its window


async def test_a_server_that_is_not_there(routed: WorkerFactory) -> None:
    """Nobody listens: the next one is asked."""
    async with ReplayServer([recorded("openai", "text")]) as gone:
        pass_by = anthropic(gone)
    async with ReplayServer([recorded("openai", "text")]) as b, routed({"main": [pass_by, openai(b)]}) as (fleet, _):
        result, chunks = await ended(await fleet.submit("hi"))
    assert result.output == answer_of("openai", "text")
    assert [switch[2] for switch in switches(chunks)] == ["unavailable"]


async def test_a_hedge_over_http_closes_the_losers_connection(routed: WorkerFactory, backend: Backend) -> None:
    """A server that takes the request and says nothing: the other one answers, and the first sees its client go."""
    async with ReplayServer([Reply(ending=Ending.SILENCE)]) as a, ReplayServer([recorded("openai", "text")]) as b:
        route = {"targets": [anthropic(a), openai(b)], "hedge_after_s": 0.1}
        async with routed({"main": route}) as (fleet, _):
            result, chunks = await ended(await fleet.submit("hi"))
            async with asyncio.timeout(LIMIT_S):
                await a.client_gone.wait()
    assert result.output == shown(chunks) == answer_of("openai", "text")
    outcomes = {record.provider: record.outcome for record in await calls_of(backend, result.task_id)}
    assert outcomes == {"anthropic": CallOutcome.CANCELLED, "openai": CallOutcome.COMPLETED}
