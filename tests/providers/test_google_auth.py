"""Access tokens for Google Cloud: how they are asked for, kept and renewed, and that no secret gets out."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from providers.errors import AuthenticationFailed, BadResponse, ProviderError, Unavailable
from providers.google_auth import GoogleAuth
from providers.google_credentials import (
    AccessToken,
    ApiKey,
    CredentialsFile,
    CredentialsJson,
    Metadata,
    Source,
    StoredCredentials,
    find_source,
)
from providers.google_grants import SCOPE
from providers.messages import AgentConfig
from providers.replay_server import ReplayServer, Reply, json_error
from providers.transport import Transport

rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")

pytestmark = pytest.mark.timeout(60)

_NOW = 1_790_000_000.0
_EMAIL = "worker@test-project.iam.gserviceaccount.com"


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now = _NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GOOGLE_ACCESS_TOKEN")
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))


@pytest.fixture(scope="module")
def private_key() -> Any:
    """A service account's key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def pem(private_key: Any) -> str:
    """The key as it stands in a file."""
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    text: bytes = private_key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    return text.decode()


@pytest.fixture
def clock() -> Clock:
    """The time by which tokens expire."""
    return Clock()


async def _no_wait(_: float) -> None:
    return


@pytest.fixture
async def auth(clock: Clock) -> AsyncIterator[GoogleAuth]:
    """Credentials with a clock of the test's own."""
    transport = Transport(sleep=_no_wait)
    yield GoogleAuth(transport, "vertex", clock=clock)
    await transport.aclose()


def _account(pem: str, token_uri: str, **more: str) -> dict[str, str]:
    found = {"type": "service_account", "project_id": "file-project", "client_email": _EMAIL, "private_key": pem}
    return found | {"private_key_id": "key-1", "token_uri": token_uri} | more


def _json(**fields: str) -> CredentialsJson:
    return CredentialsJson(text=json.dumps(fields))


def _token(text: str, expires_in: int | str = 3600) -> Reply:
    body = {"access_token": text, "expires_in": expires_in, "token_type": "Bearer"}
    return json_error(200, json.dumps(body).encode())


def _form(body: bytes) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(body.decode(), strict_parsing=True).items()}


def _decoded(part: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return content


async def test_service_account(auth: GoogleAuth, pem: str, private_key: Any, tmp_path: Path) -> None:
    """The assertion is signed with the account's key, as Google's own library verifies, and says what it must."""
    jwt = pytest.importorskip("google.auth.jwt")
    service_account = pytest.importorskip("google.oauth2.service_account")
    path = tmp_path / "account.json"
    async with ReplayServer([_token("ya29.one")]) as server:
        content = _account(pem, f"{server.url}/token")
        path.write_text(json.dumps(content))
        assert await auth.token(CredentialsFile(path=str(path))) == "ya29.one"
    sent = _form(server.requests[0].body)
    assert server.requests[0].headers["content-type"] == "application/x-www-form-urlencoded"
    assert sent["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    public = private_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    endpoint = "https://oauth2.googleapis.com/token"
    # Raises unless the signature is right.
    claims = jwt.decode(sent["assertion"], certs=public, audience=endpoint, clock_skew_in_seconds=10**9)
    assert claims == {"iss": _EMAIL, "scope": SCOPE, "aud": endpoint} | {
        "iat": int(_NOW),
        "exp": int(_NOW) + 3600,
    }
    theirs = service_account.Credentials.from_service_account_info(content, scopes=[SCOPE])
    their_header, their_claims, _ = theirs._make_authorization_grant_assertion().decode().split(".")
    assert _decoded(sent["assertion"].split(".")[0]) == _decoded(their_header)
    assert set(claims) == set(_decoded(their_claims))
    assert {name: _decoded(their_claims)[name] for name in ("iss", "scope", "aud")} == {
        name: claims[name] for name in ("iss", "scope", "aud")
    }


async def test_authorized_user(auth: GoogleAuth) -> None:
    """A user's refresh token becomes an access token; the lifetime may come as a text."""
    async with ReplayServer([_token("ya29.user", "1800")]) as server:
        user = {"client_id": "id-1", "client_secret": "secret-1", "refresh_token": "refresh-1"}
        source = _json(type="authorized_user", token_uri=f"{server.url}/token", quota_project_id="quota", **user)
        assert await auth.token(source) == "ya29.user"
        assert await auth.project(source) == "quota"
    assert _form(server.requests[0].body) == {"grant_type": "refresh_token", **user}


def _federated(server: ReplayServer, tmp_path: Path, **more: str) -> dict[str, Any]:
    """A pod on another cloud, which finds the token of its cluster in a file."""
    file = tmp_path / "identity.json"
    file.write_text('{"id_token": "cluster-token"}')
    pool = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q"
    kind = {"type": "json", "subject_token_field_name": "id_token"}
    return {
        "type": "external_account",
        "audience": pool,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{server.url}/v1/token",
        "credential_source": {"file": str(file), "format": kind},
    } | more


def _impersonated(text: str) -> Reply:
    return json_error(200, json.dumps({"accessToken": text, "expireTime": "2026-09-21T16:00:00Z"}).encode())


async def _theirs(info: dict[str, Any]) -> str:
    """The token that Google's own library gets with the same credentials."""
    transport = pytest.importorskip("google.auth.transport.requests")
    pool = pytest.importorskip("google.auth.identity_pool")
    credentials = pool.Credentials.from_info(info, scopes=[SCOPE])
    with transport.requests.Session() as session:
        await asyncio.to_thread(credentials.refresh, transport.Request(session))
    return str(credentials.token)


async def test_federation(auth: GoogleAuth, tmp_path: Path) -> None:
    """Another identity provider's token is exchanged, with the words that Google's own library uses."""
    async with ReplayServer([_token("ya29.federated")]) as server:
        info = _federated(server, tmp_path)
        assert await auth.token(CredentialsJson(text=json.dumps(info))) == "ya29.federated"
        assert await _theirs(info) == "ya29.federated"
    ours, theirs = server.requests
    assert ours.target == theirs.target == "/v1/token"
    assert _form(ours.body) == _form(theirs.body)
    assert _form(ours.body)["subject_token"] == "cluster-token"


async def test_federation_by_address(auth: GoogleAuth, tmp_path: Path) -> None:
    """The identity provider's token may be at an address, as plain text."""
    subject = Reply(frames=(b"machine-token\n",), content_type="text/plain")
    async with ReplayServer([subject, _token("ya29.federated")]) as server:
        source = {"url": f"{server.url}/identity", "headers": {"metadata": "True"}}
        info = _federated(server, tmp_path) | {"credential_source": source}
        assert await auth.token(CredentialsJson(text=json.dumps(info))) == "ya29.federated"
    assert (server.requests[0].method, server.requests[0].headers["metadata"]) == ("GET", "True")
    assert _form(server.requests[1].body)["subject_token"] == "machine-token"


async def test_impersonation(auth: GoogleAuth) -> None:
    """A user acts as a service account: one token for another."""
    async with ReplayServer([_token("ya29.user"), _impersonated("ya29.robot")]) as server:
        user = {"client_id": "i", "client_secret": "s", "refresh_token": "r", "token_uri": f"{server.url}/token"}
        url = f"{server.url}/v1/projects/-/serviceAccounts/robot@p.iam.gserviceaccount.com:generateAccessToken"
        info = {
            "type": "impersonated_service_account",
            "service_account_impersonation_url": url,
            "source_credentials": {"type": "authorized_user", **user},
        }
        assert await auth.token(CredentialsJson(text=json.dumps(info))) == "ya29.robot"
    token, asked = server.requests
    assert _form(token.body)["grant_type"] == "refresh_token"
    assert asked.headers["authorization"] == "Bearer ya29.user"
    assert json.loads(asked.body) == {"delegates": [], "scope": [SCOPE], "lifetime": "3600s"}


async def test_federation_with_impersonation(auth: GoogleAuth, clock: Clock, tmp_path: Path) -> None:
    """Both together: three tokens, of which the last counts, for as long as it says."""
    replies = [_token("ya29.federated"), _impersonated("ya29.robot")]
    async with ReplayServer([*replies, _token("ya29.again"), _impersonated("ya29.robot2")]) as server:
        url = f"{server.url}/v1/robot:generateAccessToken"
        source = CredentialsJson(text=json.dumps(_federated(server, tmp_path, service_account_impersonation_url=url)))
        assert await auth.token(source) == "ya29.robot"
        clock.now = datetime(2026, 9, 21, 15, 50, tzinfo=UTC).timestamp()
        assert await auth.token(source) == "ya29.robot"
        clock.now += 400
        assert await auth.token(source) == "ya29.robot2"
    assert server.requests[3].headers["authorization"] == "Bearer ya29.again"


async def test_metadata_server(auth: GoogleAuth) -> None:
    """A machine on Google Cloud is asked for the token of its account, and for its project."""
    project = Reply(frames=(b"cloud-project\n",), content_type="application/text")
    async with ReplayServer([_token("ya29.machine"), project]) as server:
        source = Metadata(host=urlsplit(server.url).netloc)
        assert await auth.token(source) == "ya29.machine"
        assert [await auth.project(source) for _ in range(2)] == ["cloud-project"] * 2
    token, asked = server.requests
    assert token.headers["metadata-flavor"] == "Google"
    assert urlsplit(token.target).path == "/computeMetadata/v1/instance/service-accounts/default/token"
    assert parse_qs(urlsplit(token.target).query) == {"scopes": [SCOPE]}
    assert asked.target == "/computeMetadata/v1/project/project-id"


async def test_tokens_are_kept_until_shortly_before_their_end(auth: GoogleAuth, clock: Clock, pem: str) -> None:
    """One request serves all calls of nearly an hour, and then another one the next."""
    async with ReplayServer([_token("ya29.one"), _token("ya29.two")]) as server:
        source = _json(**_account(pem, server.url))
        assert [await auth.token(source) for _ in range(3)] == ["ya29.one"] * 3
        clock.now += 3600 - 226
        assert await auth.token(source) == "ya29.one"
        clock.now += 2
        assert await auth.token(source) == "ya29.two"
    assert len(server.requests) == 2


async def test_many_wait_for_one_request(auth: GoogleAuth, pem: str) -> None:
    """However many calls need a token at once, it is asked for once; one that gives up does not take it from others."""
    async with ReplayServer([_token("ya29.one")]) as server:
        source = _json(**_account(pem, server.url))
        waiting = [asyncio.create_task(auth.token(source)) for _ in range(20)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        done = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1:] == ["ya29.one"] * 19
    assert len(server.requests) <= 2  # the cancelled one may have been sent


async def test_unreachable_endpoint(auth: GoogleAuth, clock: Clock, pem: str) -> None:
    """While a token is still good, it is used; after that the call fails, and may be tried later."""
    async with ReplayServer([_token("ya29.one"), json_error(503, b"{}")]) as server:
        source = _json(**_account(pem, server.url))
        await auth.token(source)
        clock.now += 3500
        assert await auth.token(source) == "ya29.one"
        clock.now += 100
        with pytest.raises(Unavailable):
            await auth.token(source)


async def test_forgotten_token(auth: GoogleAuth, pem: str) -> None:
    """A token that was refused is fetched anew, but not the one that has come since; a given one stays."""
    async with ReplayServer([_token("ya29.one"), _token("ya29.two")]) as server:
        source = _json(**_account(pem, server.url))
        old = await auth.token(source)
        assert auth.forget(source, old)
        assert await auth.token(source) == "ya29.two"
        assert auth.forget(source, old)
        assert await auth.token(source) == "ya29.two"
    assert not auth.forget(AccessToken(token="ya29.x"), "ya29.x")
    assert len(server.requests) == 2


async def test_withdrawn_key(auth: GoogleAuth, pem: str) -> None:
    """A refusal is the set-up's fault, says whose, and repeats no secret."""
    refusal = b'{"error": "invalid_grant", "error_description": "Bad refresh-secret-1"}'
    async with ReplayServer([json_error(400, refusal)]) as server:
        fields = {"client_id": "id-1", "client_secret": "client-secret-1", "refresh_token": "refresh-secret-1"}
        with pytest.raises(AuthenticationFailed, match=r"authorized_user id-1 gets no token.*invalid_grant") as caught:
            await auth.token(_json(type="authorized_user", token_uri=server.url, **fields))
    assert "secret-1" not in repr(caught.value) + str(caught.value.__cause__)
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"{}", b"nonsense ya29.one", b'{"expires_in": 5}'])
async def test_answer_without_token(auth: GoogleAuth, pem: str, body: bytes) -> None:
    """It is no good answer, and its content is nobody's business."""
    async with ReplayServer([json_error(200, body)]) as server:
        with pytest.raises(BadResponse) as caught:
            await auth.token(_json(**_account(pem, server.url)))
    assert "ya29" not in f"{caught.value} {caught.value.__cause__}"


async def test_no_credentials_at_all(auth: GoogleAuth) -> None:
    """Away from Google Cloud, without any credentials, the error says what can be set."""
    with pytest.raises(
        AuthenticationFailed, match=r"GOOGLE_APPLICATION_CREDENTIALS.*GOOGLE_ACCESS_TOKEN.*GOOGLE_API_KEY"
    ):
        await auth.token(Metadata(host="127.0.0.1:1"))


async def test_failing_metadata_server(auth: GoogleAuth, clock: Clock) -> None:
    """A machine that has had a token, or whose server answers, is on Google Cloud: its failures pass."""
    async with ReplayServer([json_error(503, b"{}")]) as server:
        source = Metadata(host=urlsplit(server.url).netloc)
        with pytest.raises(Unavailable):
            await auth.token(source)
        server.replies = [_token("ya29.machine")]
        await auth.token(source)
    clock.now += 4000
    with pytest.raises(Unavailable):
        await auth.token(source)


async def test_machine_without_account(auth: GoogleAuth) -> None:
    """A machine on Google Cloud may have no account."""
    async with ReplayServer([json_error(404, b"not found")]) as server:
        with pytest.raises(AuthenticationFailed, match="no service account"):
            await auth.token(Metadata(host=urlsplit(server.url).netloc))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("no json: secret-text", "no Google credentials file"),
        ('{"type": "gdch_service_account"}', "'gdch_service_account' are not supported"),
        ('{"type": "external_account"}', "neither `file` nor `url`"),
        ('{"type": "impersonated_service_account"}', "incomplete"),
        ('{"type": "service_account", "private_key": "secret-text"}', "no RSA key"),
    ],
)
async def test_unusable_file(auth: GoogleAuth, tmp_path: Path, content: str | None, said: str) -> None:
    """The error says what is wrong with the file, and nothing of what is in it."""
    path = tmp_path / "account.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(AuthenticationFailed, match=said) as caught:
        await auth.token(CredentialsFile(path=str(path)))
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret-text" not in f"{error!r}"
        error = error.__cause__


async def test_without_cryptography(auth: GoogleAuth, pem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package that signs, the error names the extra."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(AuthenticationFailed, match=r"shoal\[vertex\]"):
        await auth.token(_json(**_account(pem, "http://127.0.0.1:1")))


def test_nothing_shows_a_secret(auth: GoogleAuth) -> None:
    """Neither sources nor what was read of them."""
    hidden: list[object] = [
        AccessToken(token="secret-text"),
        ApiKey(key="secret-text"),
        CredentialsJson(text="secret-text"),
        StoredCredentials(private_key="secret-text", client_secret="secret-text", refresh_token="secret-text"),
        auth,
    ]
    assert "secret-text" not in repr(hidden)


def _found(has_project: bool = False, live: dict[str, str] | None = None, **config: Any) -> Source:
    values = live or {}
    return find_source(AgentConfig(model="m", **config), lambda key: values.get(key, ""), has_project=has_project)


def test_order_of_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The agent's own counts most, then live settings, then the environment, then the machine."""
    assert _found() == Metadata(host="metadata.google.internal")
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")
    assert _found() == Metadata(host="127.0.0.1:9")
    usual = tmp_path / "gcloud" / "application_default_credentials.json"
    usual.parent.mkdir()
    usual.write_text("{}")
    assert _found() == CredentialsFile(path=str(usual))
    monkeypatch.setenv("GOOGLE_API_KEY", "AIza-key")
    assert _found() == ApiKey(key="AIza-key")
    assert _found(has_project=True) == CredentialsFile(path=str(usual))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/file.json")
    assert _found() == CredentialsFile(path="/file.json")
    monkeypatch.setenv("GOOGLE_ACCESS_TOKEN", "ya29.env")
    assert _found() == AccessToken(token="ya29.env")
    assert _found(live={"credentials_file": "/live.json"}) == CredentialsFile(path="/live.json")
    live = {"credentials_file": "/live.json", "api_key": "AQ.live"}
    assert _found(live=live) == ApiKey(key="AQ.live")
    monkeypatch.setenv("TEAM", ' {"type": "service_account"}\n')
    assert _found(live=live, api_key_env="TEAM") == CredentialsJson(text='{"type": "service_account"}')
    monkeypatch.setenv("TEAM", "ya29.team")
    assert _found(api_key_env="TEAM") == AccessToken(token="ya29.team")


def test_unusable_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is not set, or holds what no header takes, is named in the error, without its value."""
    with pytest.raises(ProviderError, match="TEAM"):
        _found(api_key_env="TEAM")
    monkeypatch.setenv("GOOGLE_ACCESS_TOKEN", "ya29.a\nb")
    with pytest.raises(AuthenticationFailed, match="GOOGLE_ACCESS_TOKEN") as caught:
        _found()
    assert "ya29" not in str(caught.value)
