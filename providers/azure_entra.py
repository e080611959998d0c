"""Access tokens of Microsoft Entra ID: fetched when first needed, kept until shortly before they expire, never shown.

Source: https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow, and for machines at Azure
.../entra/identity/managed-identities-azure-resources/how-to-use-vm-token and
.../azure/app-service/overview-managed-identity. The variables are those of Azure's own SDKs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlencode
from weakref import WeakKeyDictionary

import msgspec
from msgspec import Struct

from providers.calls import Call, Limits
from providers.decoding import UNREADABLE
from providers.errors import AuthenticationFailed, BadResponse, InvalidRequest, Unavailable
from providers.transport import Transport

RESOURCE = "https://cognitiveservices.azure.com"

_AUTHORITY = "https://login.microsoftonline.com"
_METADATA = "http://169.254.169.254/metadata/identity/oauth2/token"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_EARLY_S = 300.0
"""So long before its end a token is replaced."""
_LIMITS = Limits(connect_timeout_s=5.0, first_event_timeout_s=15.0, max_retries=2)


class Application(Struct, frozen=True, kw_only=True):
    """An application that proves itself by a secret, or by a file with somebody else's token for it (a cluster's, for
    its workloads). Its `repr` shows no secret."""

    tenant: str
    client: str
    secret: str = ""
    token_file: str = ""
    authority: str = _AUTHORITY

    def __repr__(self) -> str:
        return f"Application({self.client} of {self.tenant})"


class ManagedIdentity(Struct, frozen=True, kw_only=True):
    """The identity of the machine or the app service that this runs on; with `client`, that one of several."""

    client: str = ""
    endpoint: str = _METADATA
    header: str = ""
    """What proves to an app service's endpoint that its own app is asking."""

    def __repr__(self) -> str:
        return f"ManagedIdentity({self.client or 'of the system'})"


Source = Application | ManagedIdentity


class _Answer(Struct):
    access_token: str = ""
    expires_in: float = 3600.0


class _Token(Struct):
    text: str
    expires_at: float


_answer_decoder = msgspec.json.Decoder(_Answer, strict=False)


def source_of(environ: Mapping[str, str], *, managed_identity: bool = False) -> Source | None:
    """Who this process is at Azure, by its variables; None if they do not say. `managed_identity`: the machine."""
    client = environ.get("AZURE_CLIENT_ID", "").strip()
    if endpoint := environ.get("IDENTITY_ENDPOINT", "").strip():
        machine = ManagedIdentity(client=client, endpoint=endpoint, header=environ.get("IDENTITY_HEADER", "").strip())
    else:
        machine = ManagedIdentity(client=client)
    if managed_identity:
        return machine
    tenant = environ.get("AZURE_TENANT_ID", "").strip()
    secret = environ.get("AZURE_CLIENT_SECRET", "").strip()
    token_file = environ.get("AZURE_FEDERATED_TOKEN_FILE", "").strip()
    if tenant and client and (secret or token_file):
        authority = environ.get("AZURE_AUTHORITY_HOST", "").strip().rstrip("/") or _AUTHORITY
        return Application(tenant=tenant, client=client, secret=secret, token_file=token_file, authority=authority)
    return machine if endpoint else None


class EntraTokens:
    """Tokens by source. One request at a time for each, however many wait for it."""

    def __init__(self, transport: Transport, provider: str, *, clock: Callable[[], float] = time.time) -> None:
        self._transport = transport
        self._provider = provider
        self._clock = clock
        self._tokens: dict[Source, _Token] = {}
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Source, asyncio.Lock]] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"EntraTokens({len(self._tokens)})"

    async def token(self, source: Source) -> str:
        """A token that is good for some minutes at least.

        Raises `AuthenticationFailed`, or `Unavailable` if nobody can be asked and no token is still good.
        """
        async with self._locks.setdefault(asyncio.get_running_loop(), {}).setdefault(source, asyncio.Lock()):
            known = self._tokens.get(source)
            left_s = known.expires_at - self._clock() if known is not None else 0.0
            if known is None or left_s <= _EARLY_S:
                try:
                    known = self._tokens[source] = await self._fetched(source)
                except Unavailable:
                    if known is None or left_s <= 0:
                        raise
            return known.text

    async def _fetched(self, source: Source) -> _Token:
        try:
            if isinstance(source, ManagedIdentity):
                answer = await self._transport.post_json(self._of_machine(source), _LIMITS)
            else:
                proof = await asyncio.to_thread(_proof, source)
                answer = await self._transport.post_json(self._of_application(source, proof), _LIMITS)
        except (InvalidRequest, AuthenticationFailed) as error:
            said = f"{self._provider}: no token of Entra ID for {source!r}: {error}"
            raise AuthenticationFailed(said, provider=self._provider, status=error.status) from None
        try:
            found = _answer_decoder.decode(answer)
        except UNREADABLE:
            found = _Answer()
        if not found.access_token:  # said without what came, which may be a token in another form
            raise BadResponse(f"{self._provider}: Entra ID's answer has no token", provider=self._provider)
        return _Token(text=found.access_token, expires_at=self._clock() + found.expires_in)

    def _of_application(self, source: Application, proof: Mapping[str, str]) -> Call:
        grant = {
            "grant_type": "client_credentials",
            "client_id": source.client,
            "scope": f"{RESOURCE}/.default",
            **proof,
        }
        return Call(
            provider=self._provider,
            url=f"{source.authority}/{source.tenant}/oauth2/v2.0/token",
            headers={"content-type": "application/x-www-form-urlencoded"},
            body=urlencode(grant).encode(),
            secrets=(proof.get("client_secret", ""), proof.get("client_assertion", "")),
        )

    def _of_machine(self, source: ManagedIdentity) -> Call:
        of_service = bool(source.header)
        query = {"api-version": "2019-08-01" if of_service else "2018-02-01", "resource": RESOURCE}
        if source.client:
            query["client_id"] = source.client
        headers = {"x-identity-header": source.header} if of_service else {"metadata": "true"}
        url = f"{source.endpoint}?{urlencode(query)}"
        return Call(provider=self._provider, url=url, headers=headers, method="GET")


def _proof(source: Application) -> dict[str, str]:
    """What proves that the application is asking. A token file is read each time: what it holds is renewed, too."""
    if source.secret:
        return {"client_secret": source.secret}
    try:
        assertion = Path(source.token_file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        said = f"AZURE_FEDERATED_TOKEN_FILE {source.token_file} cannot be read: {type(error).__name__}"
        raise AuthenticationFailed(said) from None
    return {"client_assertion_type": _ASSERTION, "client_assertion": assertion}
