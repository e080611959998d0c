"""Tokens of an OpenID Connect issuer, with a real one: which are taken, which are not, and whom they make."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from providers import ProviderTimeout
from providers.calls import Response
from providers.transport import Transport
from tests.gateway.gateway_harness import GatewayServer, gateway_settings
from tests.gateway.issuer import AUDIENCE, Issuer
from tests.gateway.probe_operations import OPERATIONS
from worker.errors import BadSetting
from worker.gateway.caller import Caller, Scope
from worker.gateway.issuer_keys import FRESH_S, MIN_REFETCH_S, STALE_S, IssuerKeys, IssuerUnavailable
from worker.gateway.oidc import Oidc
from worker.gateway.problem import Problem
from worker.settings.gateway import GatewaySettings


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An issuer with an RSA and an EC key."""
    with Issuer() as running:
        yield running


@asynccontextmanager
async def _oidc(issuer: Issuer, clock: Clock | None = None, **settings: Any) -> AsyncIterator[Oidc]:
    chosen = GatewaySettings(oidc_issuer=issuer.url, oidc_audience=(AUDIENCE,), **settings)
    chosen.check()
    http = Transport()
    yield Oidc(chosen, IssuerKeys(chosen.oidc_issuer, http, jwks_url=chosen.oidc_jwks_url, clock=clock or Clock()))
    await http.aclose()


async def _status(oidc: Oidc, token: str) -> int:
    try:
        await oidc.caller_of(token)
    except Problem as problem:
        return problem.status
    return 200


@pytest.mark.parametrize("key", ["rsa", "ec"])
async def test_a_good_token_makes_a_caller(issuer: Issuer, key: str) -> None:
    """Name, groups and scopes are those of the claims."""
    async with _oidc(issuer) as oidc:
        caller = await oidc.caller_of(
            issuer.token(
                key, name="Alice", groups=["staff", "admin"], scope="openid tasks.read agents.use", exp=4_000_000_000
            )
        )
    assert caller == Caller(
        id=f"oidc:{issuer.url}:alice",
        name="Alice",
        scopes=frozenset({Scope.TASKS_READ, Scope.AGENTS_USE}),
        groups=frozenset({"staff", "admin"}),  # a group's name is no scope
        expires_at=4_000_000_000 + GatewaySettings().oidc_leeway_s,
    )


async def test_claims_are_mapped_as_the_settings_say(issuer: Issuer) -> None:
    """Groups can give scopes, claims may lie deeper, and a tenant claim must be there if it is asked for."""
    mapping = {
        "oidc_groups_claim": "realm_access.roles",
        "oidc_tenant_claim": "https://example.com/tenant",
        "oidc_scopes": {"operators": ("ops.read", "ops.write"), "tasks": ("tasks.read",)},
        "oidc_default_scopes": ("agents.use",),
    }
    async with _oidc(issuer, **mapping) as oidc:
        claims = {"realm_access": {"roles": ["operators"]}, "scope": "tasks admin"}
        caller = await oidc.caller_of(issuer.token(**claims, **{"https://example.com/tenant": "acme"}))
        tenants = (None, "", "Acme", "acme/other", "acme%2Fother", "../acme", ["acme"], "a" * 64)
        refused = {
            await _status(oidc, issuer.token(**claims, **{"https://example.com/tenant": each})) for each in tenants
        }
    assert (caller.tenant, caller.groups) == ("acme", {"operators"})
    assert caller.scopes == {Scope.OPS_READ, Scope.OPS_WRITE, Scope.TASKS_READ, Scope.AGENTS_USE}
    assert refused == {401}


def _bad_tokens(issuer: Issuer) -> dict[str, str]:
    now = int(time.time())
    claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "alice", "exp": now + 300}
    head, _, tail = issuer.token().partition(".")
    payload, _, signature = tail.partition(".")
    forged = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "root"}).encode()).rstrip(b"=").decode()
    stranger = rsa.generate_private_key(65537, 2048)
    return {
        "expired": issuer.token(exp=now - 3600),
        "not yet valid": issuer.token(nbf=now + 3600),
        "without expiry": issuer.token(exp=None),
        "without audience": issuer.token(aud=None),
        "for somebody else": issuer.token(aud="another"),
        "without subject": issuer.token(sub=None),
        "with an endless subject": issuer.token(sub="a" * 256),
        "of another issuer": issuer.token(iss="https://evil.example.com"),
        "unsigned": jwt.encode(claims, key="", algorithm="none", headers={"kid": "rsa"}),
        "signed with the public key": _hs256(claims, issuer.public_pem()),
        "signed with a published secret": jwt.encode(
            claims, "secret-secret-secret-secret-1234", algorithm="HS256", headers={"kid": "shared"}
        ),
        "signed by a stranger": jwt.encode(claims, stranger, algorithm="RS256", headers={"kid": "rsa"}),
        "with the wrong key id": issuer.token(header={"kid": "ec"}),
        "with a key id of no key": issuer.token(header={"kid": "nobody"}),
        "with another algorithm": issuer.token(algorithm="RS512"),
        "with a changed claim": f"{head}.{forged}.{signature}",
        "without signature": f"{head}.{payload}.",
        "no token": "just-some-text",
        "too long": issuer.token(padding="a" * 20_000),
    }


def _hs256(claims: dict[str, Any], secret: bytes) -> str:
    """What the library refuses to make: a token whose secret is a public key."""
    import hashlib
    import hmac

    def part(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    signed = part(json.dumps({"alg": "HS256", "kid": "rsa"}).encode()) + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(hmac.new(secret, signed, hashlib.sha256).digest())).decode()


async def test_what_is_not_quite_a_token_is_refused(issuer: Issuer) -> None:
    """Nothing that is expired, meant for others, forged, or signed in another way opens anything."""
    async with _oidc(issuer) as oidc:
        statuses = {name: await _status(oidc, token) for name, token in _bad_tokens(issuer).items()}
        assert statuses == dict.fromkeys(statuses, 401)
        assert await _status(oidc, issuer.token()) == 200


async def test_clocks_may_differ_a_little(issuer: Issuer) -> None:
    """As far as the leeway goes, and no further."""
    async with _oidc(issuer, oidc_leeway_s=60.0) as oidc:
        assert await _status(oidc, issuer.token(exp=int(time.time()) - 30)) == 200
        assert await _status(oidc, issuer.token(exp=int(time.time()) - 90)) == 401


async def test_new_keys_are_found_and_old_ones_forgotten(issuer: Issuer) -> None:
    """A token with a newly published key is taken at once; one whose key was withdrawn is not, after a while."""
    clock = Clock()
    async with _oidc(issuer, clock) as oidc:
        assert await _status(oidc, issuer.token()) == 200
        issuer.private["new"] = ec.generate_private_key(ec.SECP256R1())
        issuer.published = ["new"]
        clock.now += MIN_REFETCH_S + 1
        assert await _status(oidc, issuer.token("new")) == 200
        assert await _status(oidc, issuer.token("rsa")) == 401
        issuer.published = []
        clock.now += FRESH_S + 1
        assert await _status(oidc, issuer.token("new")) == 401


async def test_unknown_keys_do_not_make_the_issuer_busy(issuer: Issuer) -> None:
    """However many tokens name keys that do not exist, the issuer is asked once in a while."""
    async with _oidc(issuer) as oidc:
        for number in range(50):
            assert await _status(oidc, issuer.token(header={"kid": f"k{number}"})) == 401
    assert issuer.requests.count("/keys") == 1


async def test_an_issuer_that_is_away(issuer: Issuer) -> None:
    """Its keys are used on for a day; without any, callers are told to try again, not that they are strangers."""
    clock = Clock()
    async with _oidc(issuer, clock) as oidc:
        issuer.is_down = True
        assert await _status(oidc, issuer.token()) == 503
        issuer.is_down = False
        clock.now += MIN_REFETCH_S + 1
        assert await _status(oidc, issuer.token()) == 200
        issuer.is_down = True
        clock.now += FRESH_S + 1
        assert await _status(oidc, issuer.token()) == 200
        clock.now += STALE_S
        assert await _status(oidc, issuer.token()) == 503


class _Silent(Transport):
    """An issuer that takes requests and answers none, once `is_silent`; `asked` is set when it is asked then."""

    def __init__(self) -> None:
        super().__init__()
        self.is_silent = False
        self.asked = asyncio.Event()
        self.requests = 0
        self._gives_up = asyncio.Event()

    async def request(self, method: str, url: str, **options: Any) -> Response:
        if not self.is_silent:
            return await super().request(method, url, **options)
        self.requests += 1
        self.asked.set()
        await self._gives_up.wait()
        raise ProviderTimeout("nothing came", provider="http")

    def give_up(self) -> None:
        """Every request that waits is told that it took too long."""
        self._gives_up.set()


async def test_an_issuer_that_does_not_answer_holds_one_caller_up(issuer: Issuer) -> None:
    """While one request asks for the keys anew, others use those that are known; whoever waits does not ask again."""
    clock, http = Clock(), _Silent()
    keys = IssuerKeys(issuer.url, http, clock=clock)
    async with asyncio.timeout(30):
        assert await keys.find("rsa", "RS256") is not None
        http.is_silent = True
        clock.now += FRESH_S + 1
        first = asyncio.create_task(keys.find("rsa", "RS256"))
        await http.asked.wait()
        assert await keys.find("rsa", "RS256") is not None
        waiting = [asyncio.create_task(keys.find(f"k{number}", "RS256")) for number in range(3)]
        await asyncio.sleep(0)
        clock.now += 2 * MIN_REFETCH_S  # so long it took
        http.give_up()
        assert await first is not None
        assert await asyncio.gather(*waiting) == [None] * 3
    assert http.requests == 1
    await http.aclose()


async def test_a_discovery_document_of_somebody_else_is_not_believed(issuer: Issuer) -> None:
    """The issuer in it has to be the one that was asked; a key address of the settings needs no document."""
    issuer.says_issuer = "https://evil.example.com"
    async with _oidc(issuer) as oidc:
        assert await _status(oidc, issuer.token()) == 503
    async with _oidc(issuer, oidc_jwks_url=f"{issuer.url}/keys") as oidc:
        assert await _status(oidc, issuer.token()) == 200


class _Noting(Transport):
    """Keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    async def request(self, method: str, url: str, **options: Any) -> Response:
        self.urls.append(url)
        return await super().request(method, url, **options)


async def test_keys_that_others_between_could_change_are_not_read(issuer: Issuer) -> None:
    """Whatever the discovery document says: over http, on this machine alone."""
    issuer.keys_url = "http://keys.example.com/keys"
    http = _Noting()
    keys = IssuerKeys(issuer.url, http, clock=Clock())
    with pytest.raises(IssuerUnavailable):
        await keys.find("rsa", "RS256")
    await http.aclose()
    assert http.urls == [f"{issuer.url}/.well-known/openid-configuration"]


@pytest.mark.filterwarnings("ignore:The RSA key:Warning")
async def test_keys_that_prove_nothing_are_not_used(issuer: Issuer) -> None:
    """An RSA key that is too short, or one that is published for encryption."""
    issuer.private["short"] = rsa.generate_private_key(65537, 1024)
    issuer.private["for secrets"] = rsa.generate_private_key(65537, 2048)
    issuer.published += ["short", "for secrets"]
    issuer.uses["for secrets"] = "enc"
    async with _oidc(issuer) as oidc:
        assert await _status(oidc, issuer.token()) == 200
        for key in ("short", "for secrets"):
            assert await _status(oidc, issuer.token(key, algorithm="RS256")) == 401


async def test_a_token_that_names_no_key_is_taken_if_there_is_one_only(issuer: Issuer) -> None:
    """With two that could have signed it, it is refused."""
    async with _oidc(issuer, oidc_algorithms=("ES256",)) as oidc:
        assert await _status(oidc, issuer.token("ec", header={"kid": None})) == 200
    issuer.private["second"] = ec.generate_private_key(ec.SECP256R1())
    issuer.published.append("second")
    async with _oidc(issuer) as oidc:
        assert await _status(oidc, issuer.token("ec", header={"kid": None})) == 401


async def test_tokens_and_keys_beside_each_other(issuer: Issuer) -> None:
    """A gateway with an issuer takes both, and nobody without."""
    settings = gateway_settings(gateway={"oidc_issuer": issuer.url, "oidc_audience": (AUDIENCE,), "auth": "auto"})
    with GatewayServer(settings, with_worker=False, operations=OPERATIONS) as server:
        key = server.make_key(["tasks.read"])
        token = issuer.token(scope="tasks.read")
        for credential, status in ((key, 200), (token, 200), (issuer.token(scope="ops.read"), 403), ("x", 401)):
            async with server.client(key=credential) as client:
                assert (await client.get("/t/whoami")).status_code == status
        async with server.client(key="") as client:
            refused = await client.get("/t/whoami", headers={"authorization": f"Bearer {token[:-4]}AAAA"})
            assert (await client.get("/t/whoami")).status_code == 401
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    assert token[:20] not in refused.text


@pytest.mark.parametrize(
    "settings",
    [
        {"oidc_issuer": "https://id.example.com"},
        {"oidc_issuer": "http://id.example.com", "oidc_audience": ("shoal",)},
        {"oidc_algorithms": ("HS256",)},
        {"oidc_algorithms": ("none",)},
        {"oidc_default_scopes": ("everything",)},
        {"oidc_scopes": {"staff": ("task.read",)}},
        {"oidc_issuer": "https://id.example.com", "oidc_audience": ("a",), "oidc_jwks_url": "http://example.com/k"},
    ],
)
def test_settings_that_would_let_strangers_in(settings: dict[str, Any]) -> None:
    """No audience, no encryption on the way, or an algorithm with a shared secret: refused at start."""
    with pytest.raises(BadSetting):
        GatewaySettings(**settings).check()
