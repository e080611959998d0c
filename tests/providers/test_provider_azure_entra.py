"""Azure without a key: tokens of Entra ID, for an application, a workload of a cluster, or a machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from providers.azure_entra import Application, EntraTokens, ManagedIdentity, source_of
from providers.azure_openai import AzureOpenAIProvider
from providers.errors import AuthenticationFailed, BadResponse, Unavailable
from providers.messages import AgentConfig
from providers.replay_server import Received, ReplayServer, Reply, json_error
from providers.transport import Transport
from tests.providers import openai_answers

pytestmark = pytest.mark.timeout(30)

_VARIABLES = (
    "AZURE_AUTHORITY_HOST",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_OPENAI_AD_TOKEN",
    "AZURE_OPENAI_API_KEY",
    "AZURE_OPENAI_ENDPOINT",
    "AZURE_TENANT_ID",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "OPENAI_API_VERSION",
)
_ANSWER = json_error(200, json.dumps(openai_answers.completion("Yes.")).encode())


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


async def _no_wait(_: float) -> None:
    return


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """HTTP that does not sleep between tries."""
    transport = Transport(sleep=_no_wait)
    yield transport
    await transport.aclose()


def _granted(token: str, expires_in: float | str = 3599) -> Reply:
    return json_error(
        200, json.dumps({"token_type": "Bearer", "expires_in": expires_in, "access_token": token}).encode()
    )


def _application(server: ReplayServer, **more: str) -> Application:
    return Application(**{"tenant": "t-1", "client": "c-1", "secret": "hush-hush", "authority": server.url, **more})


def _form(request: Received) -> dict[str, str]:
    return {name: value for name, (value,) in parse_qs(request.body.decode()).items()}


async def _ask(options: dict[str, bool] | None = None) -> dict[str, str]:
    """The headers of a call that the provider makes for an agent without a key."""
    provider = AzureOpenAIProvider(Transport(sleep=_no_wait))
    try:
        async with ReplayServer([_ANSWER]) as server:
            config = AgentConfig(model="my-gpt", base_url=server.url, options=options or {})
            assert await provider.complete(config, "", "Is it?", 9) == "Yes."
        return dict(server.requests[0].headers)
    finally:
        await provider.aclose()


async def test_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application's secret gets a token for Azure's models, and the token makes the call."""
    async with ReplayServer([_granted("entra-1")]) as authority:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", authority.url + "/")
        monkeypatch.setenv("AZURE_TENANT_ID", "t-1")
        monkeypatch.setenv("AZURE_CLIENT_ID", "c-1")
        monkeypatch.setenv("AZURE_CLIENT_SECRET", "hush-hush")
        headers = await _ask()
    assert headers["authorization"] == "Bearer entra-1"
    assert "api-key" not in headers
    (asked,) = authority.requests
    assert (asked.method, asked.target) == ("POST", "/t-1/oauth2/v2.0/token")
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert _form(asked) == {
        "grant_type": "client_credentials",
        "client_id": "c-1",
        "client_secret": "hush-hush",
        "scope": "https://cognitiveservices.azure.com/.default",
    }


async def test_workload_of_a_cluster(transport: Transport, tmp_path: Path) -> None:
    """The cluster's token is the proof; its file is read anew each time, because the cluster renews it."""
    clock, proof = Clock(), tmp_path / "token"
    async with ReplayServer([_granted("entra-1"), _granted("entra-2")]) as authority:
        tokens = EntraTokens(transport, "azure", clock=clock)
        source = _application(authority, secret="", token_file=str(proof))
        proof.write_text("proof-1\n")
        assert await tokens.token(source) == "entra-1"
        proof.write_text("proof-2\n")
        clock.now += 3600
        assert await tokens.token(source) == "entra-2"
    forms = [_form(request) for request in authority.requests]
    assert [form["client_assertion"] for form in forms] == ["proof-1", "proof-2"]
    assert forms[0]["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


async def test_missing_file(transport: Transport, tmp_path: Path) -> None:
    """A file that is not there is named."""
    source = Application(tenant="t", client="c", token_file=str(tmp_path / "none"))
    with pytest.raises(AuthenticationFailed, match=r"AZURE_FEDERATED_TOKEN_FILE .*none cannot be read"):
        await EntraTokens(transport, "azure").token(source)


async def test_app_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app service has an endpoint of its own, which wants to see its header; it needs no setting."""
    async with ReplayServer([_granted("entra-1", "86400")]) as endpoint:
        monkeypatch.setenv("IDENTITY_ENDPOINT", endpoint.url + "/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "app-proof")
        monkeypatch.setenv("AZURE_CLIENT_ID", "c-1")
        headers = await _ask()
    assert headers["authorization"] == "Bearer entra-1"
    (asked,) = endpoint.requests
    assert (asked.method, urlsplit(asked.target).path) == ("GET", "/msi/token")
    assert asked.headers["x-identity-header"] == "app-proof"
    assert parse_qs(urlsplit(asked.target).query) == {
        "api-version": ["2019-08-01"],
        "resource": ["https://cognitiveservices.azure.com"],
        "client_id": ["c-1"],
    }


async def test_machine(transport: Transport) -> None:
    """A machine asks its metadata service, which wants another header."""
    async with ReplayServer([_granted("entra-1", "86400")]) as metadata:
        source = ManagedIdentity(endpoint=metadata.url + "/metadata/identity/oauth2/token")
        assert await EntraTokens(transport, "azure").token(source) == "entra-1"
    (asked,) = metadata.requests
    assert asked.headers["metadata"] == "true"
    assert "api-version=2018-02-01" in asked.target


def test_sources() -> None:
    """A machine's identity is only asked for where somebody says so; half an application is none."""
    application = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "s"}
    assert source_of(application) == Application(tenant="t", client="c", secret="s")
    assert source_of({**application, "AZURE_CLIENT_SECRET": ""}) is None
    assert source_of({}) is None
    assert source_of({}, managed_identity=True) == ManagedIdentity()
    assert source_of(application, managed_identity=True) == ManagedIdentity(client="c")


async def test_machine_by_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The option makes a machine's identity count more than an application's."""
    monkeypatch.setenv("AZURE_TENANT_ID", "t-1")
    monkeypatch.setenv("AZURE_CLIENT_ID", "c-1")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "hush-hush")
    async with ReplayServer([_granted("entra-1")]) as endpoint:
        monkeypatch.setenv("IDENTITY_ENDPOINT", endpoint.url)
        assert (await _ask({"managed_identity": True}))["authorization"] == "Bearer entra-1"
    assert endpoint.requests[0].method == "GET"


async def test_keys_count_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked for a token where there is a key."""
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "a-key")
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "http://127.0.0.1:1")
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.setenv(name, "x")
    assert (await _ask())["api-key"] == "a-key"


async def test_token_is_kept(transport: Transport) -> None:
    """One token serves all who wait for it, until shortly before its end."""
    clock = Clock()
    async with ReplayServer([_granted("entra-1"), _granted("entra-2")]) as authority:
        tokens, source = EntraTokens(transport, "azure", clock=clock), _application(authority)
        assert await asyncio.gather(*(tokens.token(source) for _ in range(9))) == ["entra-1"] * 9
        clock.now += 3200
        assert await tokens.token(source) == "entra-1"
        clock.now += 150
        assert await tokens.token(source) == "entra-2"
    assert len(authority.requests) == 2


async def test_authority_that_is_down(transport: Transport) -> None:
    """A token that is still good bridges an outage; without one, the outage is the error."""
    clock = Clock()
    down = json_error(503, b'{"error": "temporarily_unavailable", "error_description": "AADSTS90033"}')
    async with ReplayServer([_granted("entra-1"), down]) as authority:
        tokens, source = EntraTokens(transport, "azure", clock=clock), _application(authority)
        await tokens.token(source)
        clock.now += 3500
        assert await tokens.token(source) == "entra-1"
        clock.now += 200
        with pytest.raises(Unavailable):
            await tokens.token(source)


@pytest.mark.parametrize("status", [400, 401])
async def test_refusal(transport: Transport, status: int) -> None:
    """A wrong secret is an error of the set-up that says what Entra ID said, and not the secret."""
    body = {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret: hush-hush."}
    async with ReplayServer([json_error(status, json.dumps(body).encode())]) as authority:
        source = _application(authority)
        with pytest.raises(AuthenticationFailed) as caught:
            await EntraTokens(transport, "azure").token(source)
    assert "AADSTS7000215" in str(caught.value)
    assert "c-1 of t-1" in str(caught.value)
    assert "hush-hush" not in f"{caught.value} {caught.value!r} {source!r}"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("body", [b"{}", b"no", b'{"access_token": 7, "secret": "hush-hush"}'])
async def test_answer_without_a_token(transport: Transport, body: bytes) -> None:
    """What is no token is not taken for one, and is not repeated in the error."""
    async with ReplayServer([json_error(200, body)]) as authority:
        with pytest.raises(BadResponse, match="no token") as caught:
            await EntraTokens(transport, "azure").token(_application(authority))
    assert "hush-hush" not in f"{caught.value}"
