"""Vertex AI's provider: where it calls, in whose name, and what it sends."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from providers.errors import AuthenticationFailed, InvalidRequest, RateLimited
from providers.messages import AgentConfig, Message, TextDelta, Thinking, ToolSpec, TurnEnd, TurnRequest
from providers.replay_server import Ending, ReplayServer, Reply, json_error
from providers.transport import Transport
from providers.vertex import VertexProvider
from providers.vertex_address import address, read_model
from providers.vertex_embeddings import batches
from worker.providers_in_use import ProvidersInUse

pytestmark = pytest.mark.timeout(60)

_RECORDINGS = Path(__file__).parent / "recordings"
_GEMINI = Reply(frames=((_RECORDINGS / "vertex" / "text.sse").read_bytes(),))
_CLAUDE = Reply(frames=((_RECORDINGS / "anthropic" / "text.sse").read_bytes(),))
_TOOL = ToolSpec(name="look", input_schema={"properties": {"at": {"type": "string"}}})


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("GOOGLE_ACCESS_TOKEN", "ya29.given")


async def _no_wait(_: float) -> None:
    return


@pytest.fixture
async def provider() -> AsyncIterator[VertexProvider]:
    """A provider that does not sleep between tries."""
    provider = VertexProvider(Transport(sleep=_no_wait))
    yield provider
    await provider.aclose()


def _turn(base_url: str, tools: tuple[ToolSpec, ...] = (), **config: Any) -> TurnRequest:
    options = config.pop("options", {"project": "p-1", "location": "europe-west1"})
    config = {"model": "gemini-2.5-flash", "options": options, "base_url": base_url, **config}
    return TurnRequest(config=AgentConfig(**config), messages=(Message.user("Hi"),), tools=tools)


async def _end(provider: VertexProvider, request: TurnRequest) -> TurnEnd:
    events = [event async for event in provider.stream_turn(request)]
    assert isinstance(events[-1], TurnEnd)
    return events[-1]


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("global", "aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("europe-west1", "europe-west1-aiplatform.googleapis.com"),
    ],
)
def test_hosts(location: str, host: str) -> None:
    """Each kind of location has hosts of its own."""
    assert address(AgentConfig(model="m"), lambda _: "", location) == f"https://{host}/v1"


@pytest.mark.parametrize(
    ("model", "publisher", "path"),
    [
        ("gemini-2.5-flash", "google", "publishers/google/models/gemini-2.5-flash"),
        ("google/gemini-2.5-pro", "google", "publishers/google/models/gemini-2.5-pro"),
        ("claude-x@2025", "anthropic", "publishers/anthropic/models/claude-x@2025"),
        ("publishers/anthropic/models/claude-x", "anthropic", "publishers/anthropic/models/claude-x"),
        ("endpoints/123", "google", "endpoints/123"),
        ("projects/p/locations/us/endpoints/1", "google", "projects/p/locations/us/endpoints/1"),
    ],
)
def test_models(model: str, publisher: str, path: str) -> None:
    """A model's name says whose it is; a tuned one is named by its endpoint."""
    found = read_model(model)
    assert (found.publisher, found.path) == (publisher, path)


async def test_gemini(provider: VertexProvider) -> None:
    """Path, token and body; the body is that of the Gemini API."""
    async with ReplayServer([_GEMINI]) as server:
        end = await _end(provider, _turn(server.url, max_tokens=9))
    sent = server.requests[0]
    assert sent.target == (
        "/v1/projects/p-1/locations/europe-west1/publishers/google/models/gemini-2.5-flash"
        ":streamGenerateContent?alt=sse"
    )
    assert sent.headers["authorization"] == "Bearer ya29.given"
    assert json.loads(sent.body) == {
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
        "generationConfig": {"maxOutputTokens": 9},
    }
    assert end.message.text.startswith("It is 21 degrees")


async def test_claude(provider: VertexProvider) -> None:
    """The model is in the path, the version in the body, and the rest is Anthropic's."""
    async with ReplayServer([_CLAUDE]) as server:
        request = _turn(server.url, (_TOOL,), model="claude-x@1", max_tokens=9, thinking=Thinking(budget_tokens=2000))
        end = await _end(provider, request)
    sent = server.requests[0]
    assert sent.target == (
        "/v1/projects/p-1/locations/europe-west1/publishers/anthropic/models/claude-x@1:streamRawPredict"
    )
    body = json.loads(sent.body)
    assert body["anthropic_version"] == "vertex-2023-10-16"
    assert "model" not in body
    assert (body["stream"], body["max_tokens"]) == (True, 2009)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert body["tools"][0]["name"] == "look"
    assert end.usage.input_tokens
    assert "anthropic-version" not in sent.headers


async def test_schema_of_claude_is_asked_for_in_the_prompt(provider: VertexProvider) -> None:
    """The API takes none there, and the loop is told so; for Gemini it depends on the model."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    async with ReplayServer([_CLAUDE]) as server:
        request = _turn(server.url, model="claude-sonnet-4-5@1", output_schema=schema)
        await _end(provider, request)
    assert b"city" not in server.requests[0].body
    assert not provider.sends_schema(request.config)
    assert provider.sends_schema(AgentConfig(model="gemini-3-pro"))
    assert not provider.sends_schema(AgentConfig(model="gemini-2.5-pro"))


async def test_express_mode(provider: VertexProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key alone needs no project; with a project named, it is used there."""
    monkeypatch.delenv("GOOGLE_ACCESS_TOKEN")
    monkeypatch.setenv("GOOGLE_API_KEY", "AIza-express-key-0123")
    monkeypatch.setenv("TEAM_KEY", "AQ.team-key")
    async with ReplayServer([_GEMINI]) as server:
        await _end(provider, _turn(server.url, options={}))
        await _end(provider, _turn(server.url, api_key_env="TEAM_KEY"))
    first, second = server.requests
    assert first.target.startswith("/v1/publishers/google/models/gemini-2.5-flash:")
    assert first.headers["x-goog-api-key"] == "AIza-express-key-0123"
    assert "authorization" not in first.headers
    assert second.target.startswith("/v1/projects/p-1/locations/europe-west1/publishers/")
    assert second.headers["x-goog-api-key"] == "AQ.team-key"


async def test_project_and_location_by_precedence(provider: VertexProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's options, the live settings, the environment; else the location is global."""
    async with ReplayServer([_GEMINI]) as server:
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p-env")
        await _end(provider, _turn(server.url, options={}))
        monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "asia-east1")
        await provider.config_updated({"project": "p-live", "location": "us"})
        await _end(provider, _turn(server.url, options={}))
        await _end(provider, _turn(server.url, options={"project": "example.com:p-own"}))
    prefixes = [request.target.partition("/publishers")[0] for request in server.requests]
    assert prefixes == [
        "/v1/projects/p-env/locations/global",
        "/v1/projects/p-live/locations/us",
        "/v1/projects/example.com:p-own/locations/us",
    ]


async def test_gemini_with_a_project_and_a_location_of_its_own_is_served_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """ark's variables, of which both are needed: agents of `gemini`, by name or by model, are called on Vertex AI."""
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "asia-east1")
    monkeypatch.setenv("GEMINI_PROJECT", "p-gemini")
    named = AgentConfig(model="gemini-2.5-flash", provider="gemini")
    in_use = ProvidersInUse()
    assert in_use.name_of(named) == "gemini"
    monkeypatch.setenv("GEMINI_LOCATION", "europe-west4")
    assert in_use.name_of(AgentConfig(model="claude-sonnet-4-5")) == "anthropic"
    async with ReplayServer([_GEMINI]) as server:
        monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", server.url)
        for config in (named, AgentConfig(model="gemini-2.5-flash")):
            async with in_use.lease(config) as provider:
                assert isinstance(provider, VertexProvider)
                await _end(provider, TurnRequest(config=config, messages=(Message.user("Hi"),)))
        await in_use.close()
    prefixes = {request.target.partition("/publishers")[0] for request in server.requests}
    assert (len(server.requests), prefixes) == (2, {"/v1/projects/p-gemini/locations/europe-west4"})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"options": {}}, "GOOGLE_CLOUD_PROJECT"),
        ({"options": {"project": "p", "location": "evil.example/x"}}, "'evil.example/x' is no Google Cloud location"),
        ({"options": {"project": "../p"}}, "is no Google Cloud project"),
        ({"model": "meta/llama-4"}, "only models of google and anthropic"),
        ({"model": ""}, "no model's name"),
        ({"model": "gemini/../x"}, "no model's name"),
    ],
)
async def test_impossible_places(provider: VertexProvider, config: dict[str, Any], said: str) -> None:
    """What cannot be called is refused before anything is sent, with what to do."""
    async with ReplayServer([_GEMINI]) as server:
        with pytest.raises(InvalidRequest, match=said):
            await _end(provider, _turn(server.url, **config))
    assert not server.requests


def _user_file(path: Path, token_uri: str) -> Path:
    fields = {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r"}
    path.write_text(json.dumps(fields | {"token_uri": token_uri, "quota_project_id": "p-file"}))
    return path


async def test_refused_token_is_renewed_once(
    provider: VertexProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A token that is withdrawn before its end costs one more request; the project comes from the file."""
    monkeypatch.delenv("GOOGLE_ACCESS_TOKEN")
    refusal = json_error(401, b'{"error": {"code": 401, "message": "expired", "status": "UNAUTHENTICATED"}}')
    tokens = [json_error(200, b'{"access_token": "ya29.%d", "expires_in": 3599}' % number) for number in (1, 2, 3)]
    async with ReplayServer(tokens) as endpoint, ReplayServer([refusal, _GEMINI, refusal]) as server:
        file = _user_file(tmp_path / "user.json", endpoint.url)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        await _end(provider, _turn(server.url, options={}))
        used = [request.headers["authorization"] for request in server.requests]
        assert used == ["Bearer ya29.1", "Bearer ya29.2"]
        assert server.requests[0].target.startswith("/v1/projects/p-file/locations/global/")
        with pytest.raises(AuthenticationFailed, match="expired"):
            await _end(provider, _turn(server.url, options={}))
    assert len(server.requests) == 4
    assert len(endpoint.requests) == 3


async def test_given_token_is_not_renewed(provider: VertexProvider) -> None:
    """There is no way to get another: one request, one error."""
    async with ReplayServer([json_error(401, b'{"error": {"message": "expired"}}')]) as server:
        with pytest.raises(AuthenticationFailed):
            await _end(provider, _turn(server.url))
    assert len(server.requests) == 1


async def test_no_credentials(provider: VertexProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent without credentials, and a health check tells so instead of raising."""
    monkeypatch.delenv("GOOGLE_ACCESS_TOKEN")
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    async with ReplayServer([_GEMINI]) as server:
        with pytest.raises(AuthenticationFailed, match="no Google credentials"):
            await _end(provider, _turn(server.url))
        health = await provider.health_check(_turn(server.url).config)
    assert not health.healthy
    assert "GOOGLE_APPLICATION_CREDENTIALS" in health.message
    assert not server.requests


async def test_counts_and_health(provider: VertexProvider) -> None:
    """Both families are counted by the vendor, which is what a health check does, too."""
    gemini, claude = json_error(200, b'{"totalTokens": 7}'), json_error(200, b'{"input_tokens": 8}')
    async with ReplayServer([gemini, claude, gemini]) as server:
        config = _turn(server.url, system_prompt="Be kind.").config
        assert await provider.count_tokens(config, [Message.user("Hi")]) == 7
        claude_config = _turn(server.url, model="claude-x@1", system_prompt="Be kind.").config
        assert await provider.count_tokens(claude_config, [Message.user("Hi")]) == 8
        health = await provider.health_check(_turn(server.url, model="").config)
    assert [request.target.partition("/publishers/")[2] for request in server.requests] == [
        "google/models/gemini-2.5-flash:countTokens",
        "anthropic/models/count-tokens:rawPredict",
        "google/models/gemini-2.5-flash:countTokens",
    ]
    assert json.loads(server.requests[0].body)["systemInstruction"] == {"parts": [{"text": "Be kind."}]}
    assert json.loads(server.requests[1].body)["model"] == "claude-x@1"
    assert health.healthy
    assert health.details == {"location": "europe-west1", "model": "gemini-2.5-flash"}


async def test_completion_of_claude(provider: VertexProvider) -> None:
    """One piece, with a limit of its own where none is given."""
    async with ReplayServer([json_error(200, b'{"content": [{"type": "text", "text": "Yes."}]}')]) as server:
        config = _turn(server.url, model="claude-x@1").config
        assert await provider.complete(config, "Be brief.", "So?", 0) == "Yes."
    assert server.requests[0].target.endswith("/claude-x@1:rawPredict")
    body = json.loads(server.requests[0].body)
    assert (body["max_tokens"], body["anthropic_version"]) == (4000, "vertex-2023-10-16")
    assert "model" not in body


async def test_embeddings(provider: VertexProvider) -> None:
    """Older models take many texts at once, with wishes; a failure of one batch is that error, not a group."""
    vectors = [{"embeddings": {"values": [0.5]}}, {"embeddings": {"values": [1.5]}}]
    async with ReplayServer([json_error(200, json.dumps({"predictions": vectors}).encode())]) as server:
        options = {"project": "p-1", "embedding_model": "text-embedding-005", "dimensions": 1}
        config = _turn(server.url, options=options | {"embedding_task": "RETRIEVAL_QUERY"}).config
        assert await provider.embed(config, ["a", "b"]) == [[0.5], [1.5]]
        assert server.requests[0].target.endswith("/publishers/google/models/text-embedding-005:predict")
        assert json.loads(server.requests[0].body) == {
            "instances": [{"content": text, "task_type": "RETRIEVAL_QUERY"} for text in ("a", "b")],
            "parameters": {"outputDimensionality": 1},
        }
        server.replies = [json_error(429, b'{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}')]
        with pytest.raises(RateLimited):
            await provider.embed(_turn(server.url, max_retries=0).config, ["a", "b", "c"])


def test_batches() -> None:
    """In order, none too large by count or length, and none empty."""
    assert list(batches("gemini-embedding-001", ["a", "b"])) == [["a"], ["b"]]
    assert [len(batch) for batch in batches("text-embedding-005", ["x"] * 501)] == [250, 250, 1]
    long = "x" * 30_000
    assert list(batches("text-embedding-005", [long, "a", long, long])) == [[long, "a"], [long], [long]]
    assert list(batches("text-embedding-005", [])) == []


async def test_closing_early_closes_the_connection(provider: VertexProvider) -> None:
    """Leaving a turn of either family ends the request."""
    async with ReplayServer([_GEMINI]) as server:
        events = provider.stream_turn(_turn(server.url))
        assert isinstance(events, AsyncGenerator)
        assert isinstance(await anext(events), TextDelta)
        await events.aclose()
        await _end(provider, _turn(server.url))


async def test_claude_needs_no_end_of_the_connection(provider: VertexProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message says itself when it is complete: a proxy that keeps the connection open holds nothing up."""
    monkeypatch.setenv("GOOGLE_ACCESS_TOKEN", "ya29.token")
    recorded = (Path(__file__).parent / "recordings" / "anthropic" / "text.sse").read_bytes()
    async with ReplayServer([Reply(frames=(recorded,), ending=Ending.SILENCE)]) as server:
        end = await _end(provider, _turn(server.url, model="claude-sonnet-4-5", idle_timeout_s=10.0))
    assert end.message.text


async def test_errors_of_claude_are_vertex_ais(provider: VertexProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads them knows whose they are."""
    monkeypatch.setenv("GOOGLE_ACCESS_TOKEN", "ya29.token")
    frame = b'data: {"type":"error","error":{"type":"invalid_request_error","message":"no"}}\n\n'
    async with ReplayServer([Reply(frames=(frame,))]) as server:
        with pytest.raises(InvalidRequest, match="vertex API error: invalid_request_error: no") as told:
            await _end(provider, _turn(server.url, model="claude-sonnet-4-5"))
    assert told.value.provider == "vertex"
