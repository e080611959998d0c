"""Azure's provider: addresses and versions, keys and tokens, and what its content filters say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from providers.azure_openai import AzureOpenAIProvider, AzureResponsesProvider
from providers.content_filter import filtered_categories
from providers.errors import AuthenticationFailed, InvalidRequest, ProviderError, RateLimited, Refused
from providers.messages import AgentConfig, Message, StopReason, TurnEnd, TurnRequest
from providers.replay_server import Received, ReplayServer, Reply, json_error
from providers.transport import Transport
from tests.providers import openai_answers

pytestmark = pytest.mark.timeout(30)

_VARIABLES = ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "OPENAI_API_VERSION")
_VIOLENCE = {"violence": {"filtered": True, "severity": "medium"}, "hate": {"filtered": False, "severity": "safe"}}
_DONE = b"data: [DONE]\n\n"


async def _no_wait(_: float) -> None:
    return


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "test-key-azure")


@pytest.fixture
async def provider() -> AsyncIterator[AzureOpenAIProvider]:
    """A provider that does not sleep between tries."""
    provider = AzureOpenAIProvider(Transport(sleep=_no_wait))
    yield provider
    await provider.aclose()


def _chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
    return b"data: " + json.dumps({"id": "c1", "model": "gpt-x", "choices": [choice]}).encode() + b"\n\n"


def _response_end(**more: Any) -> bytes:
    kind = "response.incomplete" if more.get("status") == "incomplete" else "response.completed"
    event = {"type": kind, "response": openai_answers.response("ok", **more)}
    return f"event: {kind}\ndata: {json.dumps(event)}\n\n".encode()


_CHAT = Reply(frames=(_chunk({"content": "ok"}, "stop"), _DONE))
_RESPONSE = Reply(frames=(_response_end(),))


def _request(**config: Any) -> TurnRequest:
    config = {"model": "my-gpt", "max_retries": 0, **config}
    return TurnRequest(config=AgentConfig(**config), messages=(Message.user("Hi"),))


async def _turn(provider: AzureOpenAIProvider, reply: Reply, **config: Any) -> tuple[TurnEnd, Received]:
    async with ReplayServer([reply]) as server:
        request = _request(base_url=server.url, **config)
        end = [event async for event in provider.stream_turn(request)][-1]
    assert isinstance(end, TurnEnd)
    return end, server.requests[0]


async def _failure(provider: AzureOpenAIProvider, reply: Reply, **config: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await _turn(provider, reply, **config)
    return caught.value


@pytest.mark.parametrize(
    ("api", "version", "target"),
    [
        ("chat", "", "/openai/v1/chat/completions"),
        ("chat", "v1", "/openai/v1/chat/completions"),
        ("chat", "preview", "/openai/v1/chat/completions?api-version=preview"),
        ("chat", "2024-10-21", "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"),
        ("responses", "", "/openai/v1/responses"),
        ("responses", "2025-04-01-preview", "/openai/responses?api-version=2025-04-01-preview"),
    ],
)
async def test_addresses(
    provider: AzureOpenAIProvider, monkeypatch: pytest.MonkeyPatch, api: str, version: str, target: str
) -> None:
    """The version decides the path; the deployment is in the body in any case."""
    monkeypatch.setenv("OPENAI_API_VERSION", version)
    _, sent = await _turn(provider, _CHAT if api == "chat" else _RESPONSE, options={"api": api})
    assert (sent.method, sent.target) == ("POST", target)
    assert json.loads(sent.body)["model"] == "my-gpt"


async def test_older_version_of_one_agent(provider: AzureOpenAIProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent's own version counts more than the environment's, and a deployment's name is part of a path safely."""
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    _, sent = await _turn(provider, _CHAT, model="my gpt/4", options={"api_version": "2025-01-01-preview"})
    assert sent.target == "/openai/deployments/my%20gpt%2F4/chat/completions?api-version=2025-01-01-preview"


@pytest.mark.parametrize("suffix", ["", "/", "/openai", "/openai/", "/openai/v1", "/openai/v1/"])
async def test_endpoint_as_the_portal_shows_it(
    provider: AzureOpenAIProvider, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """The variable may hold the resource's address, or that of its API."""
    async with ReplayServer([_CHAT]) as server:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.url + suffix)
        _ = [event async for event in provider.stream_turn(_request())]
    assert server.requests[0].target == "/openai/v1/chat/completions"


async def test_missing_endpoint(provider: AzureOpenAIProvider) -> None:
    """Nothing is sent to nobody; the error says what to set."""
    with pytest.raises(InvalidRequest, match="AZURE_OPENAI_ENDPOINT"):
        _ = [event async for event in provider.stream_turn(_request())]


async def test_whole_path_as_endpoint(provider: AzureOpenAIProvider) -> None:
    """A target with deployment and version is refused before its parts contradict the agent's."""
    target = "https://my.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=2025-01-01"
    with pytest.raises(InvalidRequest, match="more than an endpoint"):
        _ = [event async for event in provider.stream_turn(_request(base_url=target))]


async def test_credentials(provider: AzureOpenAIProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent's own key, then live settings, then the environment; in each, a token counts more than a key."""

    async def sent(**config: Any) -> dict[str, str]:
        headers = (await _turn(provider, _CHAT, **config))[1].headers
        return {name: headers[name] for name in ("authorization", "api-key") if name in headers}

    assert await sent() == {"api-key": "test-key-azure"}
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "entra-token")
    assert await sent() == {"authorization": "Bearer entra-token"}
    await provider.config_updated({"api_key": "live-key"})
    assert await sent() == {"api-key": "live-key"}
    await provider.config_updated({"ad_token": "live-token"})
    assert await sent() == {"authorization": "Bearer live-token"}
    monkeypatch.setenv("TEAM_KEY", "team-key")
    assert await sent(api_key_env="TEAM_KEY") == {"api-key": "team-key"}


async def test_no_credentials(provider: AzureOpenAIProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any, the error names both variables."""
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    error = await _failure(provider, _CHAT)
    assert type(error) is AuthenticationFailed
    assert "AZURE_OPENAI_API_KEY is not set" in str(error)
    assert "AZURE_OPENAI_AD_TOKEN" in str(error)


async def test_token_is_no_part_of_errors(provider: AzureOpenAIProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that repeats a token does not bring it into an error."""
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "eyJ0eXAi-entra-token")
    error = await _failure(provider, json_error(401, b'{"error":{"message":"bad token eyJ0eXAi-entra-token"}}'))
    assert "entra-token" not in str(error)


async def test_unknown_api(provider: AzureOpenAIProvider) -> None:
    """A protocol that there is none is refused with those that there are."""
    with pytest.raises(InvalidRequest, match="use chat or responses"):
        _ = [event async for event in provider.stream_turn(_request(options={"api": "assistants"}))]


async def test_live_api(provider: AzureOpenAIProvider) -> None:
    """The protocol is a live setting, too."""
    await provider.config_updated({"api": "responses", "api_version": "preview"})
    _, sent = await _turn(provider, _RESPONSE)
    assert sent.target == "/openai/v1/responses?api-version=preview"


async def test_responses_as_default() -> None:
    """There is a provider for those who use nothing but responses."""
    provider = AzureResponsesProvider()
    try:
        end, sent = await _turn(provider, _RESPONSE)
    finally:
        await provider.aclose()
    assert (end.message.text, sent.target) == ("ok", "/openai/v1/responses")


async def test_filtered_prompt(provider: AzureOpenAIProvider) -> None:
    """A prompt that the filter stops is a refusal, final, and says what was found, in both protocols' words."""
    chat = {
        "message": "The response was filtered due to the prompt triggering the content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {**_VIOLENCE, "jailbreak": {"filtered": True, "detected": True}},
        },
    }
    filters = [{"blocked": True, "source_type": "prompt", "content_filter_results": _VIOLENCE}]
    responses = {"message": "The response was filtered.", "code": "content_filter", "content_filters": filters}
    for error, api, found in (
        (chat, "chat", "violence: medium, jailbreak"),
        (responses, "responses", "violence: medium"),
    ):
        refused = await _failure(provider, json_error(400, json.dumps({"error": error}).encode()), options={"api": api})
        assert (type(refused), refused.status) == (Refused, 400)
        assert "was filtered" in str(refused)
        assert f"({found})" in str(refused)


async def test_filtered_answer(provider: AzureOpenAIProvider) -> None:
    """An answer that the filter stops is a refusal that names what was found and keeps the usage."""
    usage = {"prompt_tokens": 9, "completion_tokens": 4}
    counted = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    stopped = _chunk({}, "content_filter", content_filter_results=_VIOLENCE)
    error = await _failure(provider, Reply(frames=(_chunk({"content": "Once"}), stopped, counted, _DONE)))
    assert type(error) is Refused
    assert "violence: medium" in str(error)
    assert error.usage is not None
    assert error.usage.input_tokens == 9


async def test_filtered_response(provider: AzureOpenAIProvider) -> None:
    """The same for responses; where the filter does not say what it found, the stop reason tells."""
    incomplete = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
    filters = [{"blocked": True, "source_type": "completion", "content_filter_results": _VIOLENCE}]
    named = Reply(frames=(_response_end(**incomplete, content_filters=filters),))
    error = await _failure(provider, named, options={"api": "responses"})
    assert type(error) is Refused
    assert "violence: medium" in str(error)
    end, _ = await _turn(provider, Reply(frames=(_response_end(**incomplete),)), options={"api": "responses"})
    assert end.stop_reason is StopReason.REFUSAL


async def test_filter_that_is_late_or_failed(provider: AzureOpenAIProvider) -> None:
    """Verdicts in chunks of their own, and filters that did not run, change nothing about an answer."""
    late: dict[str, Any] = {
        "content_filter_offsets": {"check_offset": 0},
        "content_filter_results": {"hate": {"filtered": False}},
    }
    failed: dict[str, Any] = {
        "content_filter_results": {"error": {"code": "content_filter_error", "message": "not filtered"}}
    }
    frames = (_chunk({"content": "ok"}, **failed), _chunk({}, "stop"), _chunk({}, **late), _DONE)
    end, _ = await _turn(provider, Reply(frames=frames))
    assert (end.message.text, end.stop_reason) == ("ok", StopReason.END_TURN)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"statusCode": 401, "message": "Unauthorized. Access token is missing, invalid, or expired."}, None),
        (401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key."}}, None),
        (
            404,
            {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}},
            InvalidRequest,
        ),
        (429, {"error": {"code": "429", "message": "Requests have exceeded call rate limit."}}, RateLimited),
    ],
)
async def test_errors(
    provider: AzureOpenAIProvider, status: int, body: dict[str, Any], kind: type[ProviderError] | None
) -> None:
    """Azure's own error bodies are read, whichever layer they come from."""
    error = await _failure(provider, json_error(status, json.dumps(body).encode()))
    assert type(error) is (kind or AuthenticationFailed)
    said = body.get("error", body)["message"]
    assert said in str(error)


async def test_embeddings_of_a_deployment(provider: AzureOpenAIProvider) -> None:
    """Where the path names the deployment, it is that of the embedding model."""
    answer = json.dumps(openai_answers.embeddings([[0.5]])).encode()
    async with ReplayServer([json_error(200, answer)]) as server:
        options = {"embedding_model": "my-embeddings", "api_version": "2024-10-21"}
        config = AgentConfig(model="my-gpt", base_url=server.url, options=options)
        assert await provider.embed(config, ["a"]) == [[0.5]]
    assert server.requests[0].target == "/openai/deployments/my-embeddings/embeddings?api-version=2024-10-21"


async def test_health(provider: AzureOpenAIProvider) -> None:
    """The models of the resource are listed, in the version that is set; the details show the endpoint."""
    async with ReplayServer([json_error(200, b'{"data": []}')]) as server:
        config = AgentConfig(model="my-gpt", base_url=server.url, options={"api_version": "2024-10-21"})
        health = await provider.health_check(config)
        assert (health.healthy, health.details) == (True, {"base_url": server.url})
    assert server.requests[0].target == "/openai/models?api-version=2024-10-21"


async def test_reasoning_stays_with_its_provider(provider: AzureOpenAIProvider) -> None:
    """Encrypted reasoning of OpenAI itself is of no use at Azure, and is not sent there."""
    thought = {"type": "thinking", "signature": '{"encrypted_content": "x"}', "provider": "openai_responses"}
    parts = [thought, {"type": "text", "text": "ok"}]
    message = msgspec.convert({"role": "assistant", "parts": parts}, Message)
    async with ReplayServer([_RESPONSE]) as server:
        request = _request(base_url=server.url, options={"api": "responses"})
        request = msgspec.structs.replace(request, messages=(Message.user("Hi"), message, Message.user("?")))
        _ = [event async for event in provider.stream_turn(request)]
    assert [item.get("type") for item in json.loads(server.requests[0].body)["input"]] == [None, "message", None]


@pytest.mark.parametrize("report", [None, "hate", 7, {}, [], {"hate": None}, {"hate": {"filtered": False}}])
def test_reports_without_a_finding(report: object) -> None:
    """Nothing is found where nothing is said to be."""
    assert filtered_categories(report) == ""
