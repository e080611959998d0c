"""AWS keys: where they are found, how long they are kept, and what must never be shown."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from providers.aws_credentials import AwsAccess, AwsCredentials
from providers.aws_keys import AwsKeys
from providers.aws_profiles import load_profiles
from providers.errors import AuthenticationFailed, ProviderError, Unavailable
from providers.replay_server import ReplayServer, Reply, json_error
from providers.transport import Transport

pytestmark = [pytest.mark.timeout(30), pytest.mark.usefixtures("aws_environment")]

_NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC).timestamp()


class Clock:
    """A clock that stands still until somebody moves it."""

    def __init__(self) -> None:
        self.now = _NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Noon."""
    return Clock()


@pytest.fixture
async def credentials(clock: Clock) -> AsyncIterator[AwsCredentials]:
    """The chain, with nothing found before."""
    transport = Transport()
    yield AwsCredentials(transport, clock)
    await transport.aclose()


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(_NOW + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json_keys(name: str, expires_in_s: float = 3600) -> bytes:
    keys = {"AccessKeyId": name, "SecretAccessKey": "secret-" + name, "Token": "token-" + name, "Code": "Success"}
    return json.dumps(keys | {"Expiration": _at(expires_in_s)}).encode()


def _sts_keys(name: str, action: str = "AssumeRole") -> Reply:
    xml = (
        f"<{action}Response><{action}Result><Credentials><AccessKeyId>{name}</AccessKeyId>"
        f"<SecretAccessKey>secret&amp;{name}</SecretAccessKey><SessionToken>token</SessionToken>"
        f"<Expiration>{_at(3600)}</Expiration></Credentials></{action}Result></{action}Response>"
    )
    return Reply(frames=(xml.encode(),), content_type="text/xml")


def _profiles(tmp_path: Path, config: str = "", credentials: str = "") -> None:
    (tmp_path / "config").write_text(config)
    (tmp_path / "credentials").write_text(credentials)


async def _key(credentials: AwsCredentials, profile: str = "", region: str = "") -> str:
    return (await credentials.keys(AwsAccess(profile=profile, region=region))).access_key_id


async def test_environment(credentials: AwsCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in the environment are read at each call, so that a change counts at once."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "first")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert await credentials.keys(AwsAccess()) == AwsKeys(access_key_id="first", secret_access_key="s")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "second")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t")
    found = await credentials.keys(AwsAccess())
    assert found == AwsKeys(access_key_id="second", secret_access_key="s", session_token="t")
    own = AwsKeys(access_key_id="own", secret_access_key="s")
    assert await credentials.keys(AwsAccess(keys=own)) is own


async def test_nothing_found(credentials: AwsCredentials) -> None:
    """Without any, the error names what can be set."""
    with pytest.raises(AuthenticationFailed, match=r"AWS_ACCESS_KEY_ID.*AWS_PROFILE.*AWS_BEARER_TOKEN_BEDROCK"):
        await credentials.keys(AwsAccess())


async def test_profiles(credentials: AwsCredentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both files are read, the credentials file counts more; setting, variable and `default` name the profile."""
    _profiles(
        tmp_path,
        "[default]\nregion = us-east-1\naws_access_key_id = old\naws_secret_access_key = old\ns3 =\n  x = y\n"
        "[profile team]\naws_access_key_id = team\naws_secret_access_key = t%25\n",
        "[default]\naws_access_key_id = plain\naws_secret_access_key = p\n"
        "[other]\naws_access_key_id = other\naws_secret_access_key = o\naws_session_token = tok\n",
    )
    assert await _key(credentials) == "plain"
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert (await credentials.keys(AwsAccess())).session_token == "tok"
    assert await credentials.keys(AwsAccess(profile="team")) == AwsKeys(access_key_id="team", secret_access_key="t%25")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "e")
    assert await _key(credentials) == "environment"
    assert await _key(credentials, profile="team") == "team"
    with pytest.raises(AuthenticationFailed, match="no AWS profile 'nobody'; there are: default, team, other"):
        await credentials.keys(AwsAccess(profile="nobody"))


async def test_changed_file(credentials: AwsCredentials, tmp_path: Path, clock: Clock) -> None:
    """A key that was exchanged in the file is used after a minute at the latest."""
    _profiles(tmp_path, credentials="[default]\naws_access_key_id = a\naws_secret_access_key = s\n")
    assert await _key(credentials) == "a"
    _profiles(tmp_path, credentials="[default]\naws_access_key_id = b\naws_secret_access_key = s\n")
    assert await _key(credentials) == "a"
    clock.now += 61
    assert await _key(credentials) == "b"


async def test_unreadable_file(credentials: AwsCredentials, tmp_path: Path) -> None:
    """A file that cannot be read is named, and none of its lines is shown."""
    _profiles(tmp_path, credentials="aws_secret_access_key = very-secret\n[default\n")
    with pytest.raises(AuthenticationFailed, match="credentials cannot be read") as caught:
        await credentials.keys(AwsAccess())
    assert "very-secret" not in "".join(traceback.format_exception(caught.value, chain=True))
    assert caught.value.__context__ is None


async def test_single_sign_on(credentials: AwsCredentials, tmp_path: Path) -> None:
    """A profile that needs AWS's own tools says how to use them."""
    _profiles(tmp_path, "[profile dev]\nsso_session = corp\nsso_role_name = dev\n")
    with pytest.raises(AuthenticationFailed, match="credential_process = aws configure export-credentials"):
        await credentials.keys(AwsAccess(profile="dev"))


async def test_credential_process(credentials: AwsCredentials, tmp_path: Path) -> None:
    """The keys are what the program prints; one that fails is named, without what it printed."""
    program = tmp_path / "keys.py"
    program.write_text("import sys; print(sys.argv[1]); sys.exit(len(sys.argv) - 2)")
    printed = json.dumps({"Version": 1, "AccessKeyId": "made", "SecretAccessKey": "s", "SessionToken": "t"})
    _profiles(
        tmp_path,
        f"[profile good]\ncredential_process = {sys.executable} {program} '{printed}'\n"
        f"[profile bad]\ncredential_process = {sys.executable} {program} very-secret more\n"
        f"[profile odd]\ncredential_process = {sys.executable} {program} '{{}}'\n"
        "[profile none]\ncredential_process = /no/such/program\n",
    )
    found = await credentials.keys(AwsAccess(profile="good"))
    assert found == AwsKeys(access_key_id="made", secret_access_key="s", session_token="t")
    for profile, said in (("bad", "ended with 1"), ("odd", "are no AWS credentials"), ("none", "cannot be started")):
        with pytest.raises(AuthenticationFailed, match=said) as caught:
            await credentials.keys(AwsAccess(profile=profile))
        assert "very-secret" not in str(caught.value)


async def test_web_identity(credentials: AwsCredentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token file and a role, as Kubernetes sets them, are exchanged for keys at the token service, unsigned."""
    (tmp_path / "token").write_text("a.jwt.token\n")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/agents")
    monkeypatch.setenv("AWS_ROLE_SESSION_NAME", "shoal-1")
    async with ReplayServer([_sts_keys("web", "AssumeRoleWithWebIdentity")]) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
        found = await credentials.keys(AwsAccess(region="eu-west-1"))
    assert found == AwsKeys(access_key_id="web", secret_access_key="secret&web", session_token="token")
    (asked,) = server.requests
    assert "authorization" not in asked.headers
    assert {name: value for name, (value,) in parse_qs(asked.body.decode()).items()} == {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": "arn:aws:iam::123456789012:role/agents",
        "RoleSessionName": "shoal-1",
        "WebIdentityToken": "a.jwt.token",
    }


async def test_refused_web_identity(
    credentials: AwsCredentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal says why, without the token; a token service that fails is worth another try."""
    (tmp_path / "token").write_text("a.jwt.token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/agents")
    why = b"<ErrorResponse><Code>AccessDenied</Code><Message>Not authorized: a.jwt.token</Message></ErrorResponse>"
    denied = Reply(status=403, frames=(why,), content_type="text/xml")
    async with ReplayServer([denied, Reply(status=503, frames=(b"busy",))]) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
        with pytest.raises(AuthenticationFailed, match=r"role/agents: 403 AccessDenied Not authorized") as caught:
            await credentials.keys(AwsAccess())
        assert "a.jwt.token" not in str(caught.value)
        with pytest.raises(Unavailable, match="503"):
            await credentials.keys(AwsAccess())
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "gone"))
    with pytest.raises(AuthenticationFailed, match="gone cannot be read"):
        await credentials.keys(AwsAccess())


async def test_role_of_a_profile(credentials: AwsCredentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile's role is taken on with the keys of another profile, which sign the request."""
    _profiles(
        tmp_path,
        "[profile agents]\nrole_arn = arn:aws:iam::1:role/agents\nsource_profile = base\nexternal_id = ext\n"
        "[profile round]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = round\n"
        "[profile bare]\nrole_arn = arn:aws:iam::1:role/r\n",
        "[base]\naws_access_key_id = base\naws_secret_access_key = s\n",
    )
    async with ReplayServer([_sts_keys("role")]) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
        assert await _key(credentials, profile="agents", region="eu-west-1") == "role"
    (asked,) = server.requests
    assert "Credential=base/20261121/eu-west-1/sts/aws4_request" in asked.headers["authorization"]
    assert parse_qs(asked.body.decode())["ExternalId"] == ["ext"]
    with pytest.raises(AuthenticationFailed, match="circle"):
        await credentials.keys(AwsAccess(profile="round"))
    with pytest.raises(AuthenticationFailed, match="set source_profile or credential_source"):
        await credentials.keys(AwsAccess(profile="bare"))


async def test_container(credentials: AwsCredentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The container's endpoint is asked with the token of the moment, as EKS Pod Identity and ECS want it."""
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "not-this")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    (tmp_path / "token").write_text("of-the-file\n")
    async with ReplayServer([json_error(200, _json_keys("pod"))]) as server:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.url + "/v1/credentials")
        assert await _key(credentials) == "pod"
    (asked,) = server.requests
    assert (asked.method, asked.target, asked.headers["authorization"]) == ("GET", "/v1/credentials", "of-the-file")


@pytest.mark.parametrize("url", ["http://example.com/keys", "http://169.254.169.254/keys", "ftp://127.0.0.1/", "x"])
async def test_foreign_container_endpoint(
    credentials: AwsCredentials, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody but this machine and the container services is asked without TLS."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
    with pytest.raises(AuthenticationFailed, match="nobody else may be asked"):
        await credentials.keys(AwsAccess())


async def test_instance(credentials: AwsCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance's role gives keys, to who shows the session token of the service's second version."""
    replies = [
        Reply(frames=(b"session-token",), content_type="text/plain"),
        Reply(frames=(b"agents-role",), content_type="text/plain"),
        json_error(200, _json_keys("instance")),
    ]
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    async with ReplayServer(replies) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
        assert await _key(credentials) == "instance"
    assert [(asked.method, asked.target) for asked in server.requests] == [
        ("PUT", "/latest/api/token"),
        ("GET", "/latest/meta-data/iam/security-credentials/"),
        ("GET", "/latest/meta-data/iam/security-credentials/agents-role"),
    ]
    assert [asked.headers.get("x-aws-ec2-metadata-token") for asked in server.requests[1:]] == ["session-token"] * 2


async def test_instance_without_role(credentials: AwsCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """One without a role is as if there were none."""
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    async with ReplayServer([Reply(frames=(b"t",)), Reply(status=404)]) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
        with pytest.raises(AuthenticationFailed, match="no AWS credentials"):
            await credentials.keys(AwsAccess())


async def test_kept_until_shortly_before_the_end(
    credentials: AwsCredentials, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys are asked for again five minutes before they expire, not earlier."""
    replies = [json_error(200, _json_keys(name, lasts)) for name, lasts in (("a", 3600), ("b", 7200))]
    async with ReplayServer(replies) as server:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.url)
        assert [await _key(credentials) for _ in range(3)] == ["a"] * 3
        clock.now += 3299
        assert await _key(credentials) == "a"
        assert len(server.requests) == 1
        clock.now += 2
        assert [await _key(credentials) for _ in range(3)] == ["b"] * 3
        assert len(server.requests) == 2


async def test_one_refresh_at_a_time(credentials: AwsCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls need keys at once, they are asked for once."""
    async with ReplayServer([json_error(200, _json_keys("a"))]) as server:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.url)
        assert set(await asyncio.gather(*(_key(credentials) for _ in range(50)))) == {"a"}
        assert len(server.requests) == 1


async def test_failing_refresh(credentials: AwsCredentials, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that are still good outlive a service that fails; afterwards its error goes up, and then all is well."""
    busy = Reply(status=503, frames=(b"busy",))
    replies = [json_error(200, _json_keys("a")), busy, busy, json_error(200, _json_keys("b", 20_000))]
    async with ReplayServer(replies) as server:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.url)
        assert await _key(credentials) == "a"
        clock.now += 3400
        assert [await _key(credentials) for _ in range(2)] == ["a"] * 2
        assert len(server.requests) == 2
        clock.now += 300
        with pytest.raises(Unavailable, match="503"):
            await credentials.keys(AwsAccess())
        assert await _key(credentials) == "b"


async def test_cancelled_refresh(credentials: AwsCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the call that asks is cancelled, the next one that waits asks in its place."""
    async with ReplayServer([Reply(silent_head=True), json_error(200, _json_keys("a"))]) as server:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.url)
        first = asyncio.create_task(_key(credentials))
        while not server.requests:
            await asyncio.sleep(0)
        second = asyncio.create_task(_key(credentials))
        first.cancel()
        assert await second == "a"
        assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], asyncio.CancelledError)


@pytest.mark.parametrize("body", [b"{}", b"<html>", b'{"AccessKeyId":"a","SecretAccessKey":"s","Expiration":"soon"}'])
async def test_odd_answers(credentials: AwsCredentials, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no answer at all is an error, not half a key."""
    async with ReplayServer([json_error(200, body)]) as server:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.url)
        with pytest.raises(ProviderError, match="container's credentials endpoint"):
            await credentials.keys(AwsAccess())


async def test_profile_files_as_their_library_reads_them(tmp_path: Path) -> None:
    """AWS's own library finds the same profiles in the same files."""
    loader = pytest.importorskip("botocore.session")
    _profiles(
        tmp_path,
        "[default]\nregion = eu-west-1\n[profile 'my team']\nregion=us-east-1\nrole_arn=r\nsource_profile = b\n"
        "[plugins]\nx = y\n# comment\n[profile tab]\n\tregion = ap-south-1\n",
        "[b]\naws_access_key_id=a\naws_secret_access_key = s/+=#;x\n",
    )

    ours = await load_profiles()
    theirs = loader.Session().full_config["profiles"]
    for name in ("default", "my team", "b"):
        assert dict(ours[name]) == theirs[name], name


async def test_instance_service_that_fails(credentials: AwsCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """A metadata service that is there but overloaded is waited for: the task must not fail for good."""
    async with ReplayServer([json_error(503, b"slow down")]) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
        with pytest.raises(Unavailable, match="metadata service answered 503"):
            await credentials.keys(AwsAccess())
