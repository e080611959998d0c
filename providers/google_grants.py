"""From stored credentials to an access token: one or two requests to Google's token services.

Source: RFC 6749 (6), RFC 7523, RFC 8693, https://developers.google.com/identity/protocols/oauth2/service-account and
https://cloud.google.com/iam/docs/workload-identity-federation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from providers.calls import Call, Limits
from providers.decoding import UNREADABLE
from providers.errors import AuthenticationFailed, BadResponse, InvalidRequest, ProviderError
from providers.google_credentials import StoredCredentials, SubjectSource
from providers.google_jwt import signed_assertion
from providers.transport import Transport

SCOPE = "https://www.googleapis.com/auth/cloud-platform"

_LIMITS = Limits(connect_timeout_s=5.0, first_event_timeout_s=15.0, max_retries=2)
_LIFETIME_S = 3600
_OAUTH = "urn:ietf:params:oauth"
_SECRET_FIELDS = ("assertion", "client_secret", "refresh_token", "subject_token")


class Granted(Struct):
    """A token, and how long it is good for, in seconds. Its `repr` does not show it."""

    access_token: str = ""
    expires_in: float = _LIFETIME_S

    def __repr__(self) -> str:
        return f"Granted(***, {self.expires_in:g} s)"


class _Impersonated(Struct, rename="camel"):
    access_token: str = ""
    expire_time: datetime | None = None


_granted_decoder = msgspec.json.Decoder(Granted, strict=False)
_impersonated_decoder = msgspec.json.Decoder(_Impersonated)


def read_granted(provider: str, body: bytes) -> Granted:
    """What a token endpoint answers. Raises `BadResponse`, without the body or a cause that quotes it."""
    try:
        granted = _granted_decoder.decode(body)
    except UNREADABLE:
        granted = Granted()
    if not granted.access_token:
        raise _no_token(provider)
    return granted


class TokenGrants:
    """Asks for tokens, over one transport."""

    def __init__(self, transport: Transport, provider: str, clock: Callable[[], float]) -> None:
        self._transport = transport
        self._provider = provider
        self._clock = clock

    async def fetch(self, stored: StoredCredentials) -> Granted:
        """A new token. Raises `AuthenticationFailed`, or `Unavailable` if the services cannot be reached."""
        match stored.type:
            case "service_account":
                form = await asyncio.to_thread(self._assertion, stored)
                return await self._granted(stored, stored.token_uri, form)
            case "authorized_user":
                return await self._granted(stored, stored.token_uri, _refresh(stored))
            case "external_account":
                form = _exchange(stored, await self._subject_token(stored.credential_source))
                granted = await self._granted(stored, stored.token_url, form)
                is_final = not stored.service_account_impersonation_url
                return granted if is_final else await self._impersonated(stored, granted.access_token)
            case "impersonated_service_account" if stored.source_credentials is not None:
                own = await self.fetch(stored.source_credentials)
                return await self._impersonated(stored, own.access_token)
        raise AuthenticationFailed(f"{self._provider}: credentials of type {stored.type!r} are incomplete")

    def _assertion(self, stored: StoredCredentials) -> dict[str, str]:
        now = self._clock()
        signed = signed_assertion(stored.client_email, stored.private_key_id, stored.private_key, SCOPE, now)
        return {"grant_type": f"{_OAUTH}:grant-type:jwt-bearer", "assertion": signed}

    async def _granted(self, stored: StoredCredentials, url: str, form: Mapping[str, str]) -> Granted:
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        secrets = [form[name] for name in _SECRET_FIELDS if form.get(name)]
        body = await self._posted(stored, url, headers, urlencode(form).encode(), secrets)
        return read_granted(self._provider, body)

    async def _impersonated(self, stored: StoredCredentials, token: str) -> Granted:
        headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        asked = {"delegates": stored.delegates, "scope": [SCOPE], "lifetime": f"{_LIFETIME_S}s"}
        url = stored.service_account_impersonation_url
        body = await self._posted(stored, url, headers, msgspec.json.encode(asked))
        try:
            found = _impersonated_decoder.decode(body)
        except UNREADABLE:
            found = _Impersonated()
        if not found.access_token or found.expire_time is None:
            raise _no_token(self._provider)
        return Granted(access_token=found.access_token, expires_in=found.expire_time.timestamp() - self._clock())

    async def _posted(
        self,
        stored: StoredCredentials,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        secrets: Sequence[str] = (),
    ) -> bytes:
        call = Call(provider=self._provider, url=url, headers=headers, body=body, secrets=tuple(secrets))
        try:
            return await self._transport.post_json(call, _LIMITS)
        except (AuthenticationFailed, InvalidRequest) as error:  # the key was withdrawn, or the clock is wrong
            said = str(error)
        # Without its cause, which may repeat what was sent.
        raise AuthenticationFailed(f"{self._provider}: {stored.who} gets no token: {said}", provider=self._provider)

    async def _subject_token(self, source: SubjectSource) -> str:
        if source.file:
            content = await asyncio.to_thread(_read, source.file)
        elif source.url:
            content = await self._asked(source)
        else:
            raise AuthenticationFailed(
                f"{self._provider}: credential_source has neither `file` nor `url`: AWS, certificate and executable "
                "sources are not supported",
                provider=self._provider,
            )
        if source.format.type != "json":
            return content.decode("utf-8", "replace").strip()
        try:
            return str(msgspec.json.decode(content)[source.format.subject_token_field_name])
        except (*UNREADABLE, LookupError, TypeError):
            pass  # what was wrong with it may quote it
        name = source.format.subject_token_field_name
        raise AuthenticationFailed(f"{self._provider}: credential_source has no JSON field {name!r}")

    async def _asked(self, source: SubjectSource) -> bytes:
        try:
            return await self._transport.get_json(self._provider, source.url, source.headers, _LIMITS)
        except InvalidRequest as error:
            raise AuthenticationFailed(f"credential_source: {error}", provider=self._provider) from error


def _refresh(stored: StoredCredentials) -> dict[str, str]:
    return {
        "grant_type": "refresh_token",
        "client_id": stored.client_id,
        "client_secret": stored.client_secret,
        "refresh_token": stored.refresh_token,
    }


def _exchange(stored: StoredCredentials, subject_token: str) -> dict[str, str]:
    return {
        "grant_type": f"{_OAUTH}:grant-type:token-exchange",
        "audience": stored.audience,
        "scope": SCOPE,
        "requested_token_type": f"{_OAUTH}:token-type:access_token",
        "subject_token": subject_token,
        "subject_token_type": stored.subject_token_type,
    }


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        said = f"{path}: {error.strerror or type(error).__name__}: credential_source has to be a readable file"
        raise AuthenticationFailed(said) from error


def _no_token(provider: str) -> ProviderError:
    return BadResponse(f"{provider}: the token endpoint's answer has no token", provider=provider)
