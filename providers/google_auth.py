"""Access tokens for Google Cloud: fetched when first needed, kept until shortly before they expire, never shown.

Source, for machines on Google Cloud: https://cloud.google.com/compute/docs/access/authenticate-workloads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from urllib.parse import urlencode
from weakref import WeakKeyDictionary

from msgspec import Struct

from providers.calls import Limits
from providers.errors import (
    AuthenticationFailed,
    InvalidRequest,
    ProviderError,
    ProviderTimeout,
    Unavailable,
)
from providers.google_credentials import (
    AccessToken,
    CredentialsFile,
    CredentialsJson,
    Metadata,
    Source,
    read_credentials,
)
from providers.google_grants import SCOPE, Granted, TokenGrants, read_granted
from providers.transport import Transport

_EARLY_S = 225.0
"""So long before its end a token is replaced. The metadata server gives a new one no earlier than 4 minutes before."""
_MOST_TOKENS = 256
_METADATA_LIMITS = Limits(connect_timeout_s=3.0, first_event_timeout_s=5.0, max_retries=1)
_ACCOUNT = "computeMetadata/v1/instance/service-accounts/default/token"
_PROJECT = "computeMetadata/v1/project/project-id"

_HOW = (
    "set GOOGLE_APPLICATION_CREDENTIALS to a service account's file, GOOGLE_ACCESS_TOKEN to a token, or GOOGLE_API_KEY "
    "to a key of express mode"
)


class _Token(Struct):
    text: str
    expires_at: float


class GoogleAuth:
    """Tokens and projects by source of credentials. One request at a time for each token, however many wait for it."""

    def __init__(self, transport: Transport, provider: str, *, clock: Callable[[], float] = time.time) -> None:
        self._transport = transport
        self._provider = provider
        self._clock = clock
        self._grants = TokenGrants(transport, provider, clock)
        self._tokens: dict[Source, _Token] = {}
        self._projects: dict[Source, str] = {}
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Source, asyncio.Lock]] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"GoogleAuth({len(self._tokens)} tokens)"

    async def token(self, source: Source) -> str:
        """A token that is good for some minutes at least.

        Raises `AuthenticationFailed`, or `Unavailable` if the token endpoint cannot be reached and there is no token
        that is still good.
        """
        if isinstance(source, AccessToken):
            return source.token
        known = self._tokens.get(source)
        if known is not None and known.expires_at - self._clock() > _EARLY_S:
            return known.text
        async with self._lock(source):
            return await self._renewed(source)

    def forget(self, source: Source, token: str) -> bool:
        """The token was refused: fetch another next time. False if there is no way to get another."""
        if not isinstance(source, CredentialsFile | CredentialsJson | Metadata):
            return False
        known = self._tokens.get(source)
        if known is not None and known.text == token:
            del self._tokens[source]
        return True

    async def project(self, source: Source) -> str:
        """The project that the credentials belong to; empty if they do not say. Raises as `token`."""
        if source not in self._projects:
            if len(self._projects) >= _MOST_TOKENS:
                self._projects.clear()
            self._projects[source] = await self._found_project(source)
        return self._projects[source]

    async def _renewed(self, source: Source) -> str:
        known = self._tokens.get(source)
        left_s = known.expires_at - self._clock() if known is not None else 0.0
        if known is not None and left_s > _EARLY_S:
            return known.text  # somebody else has just done it
        try:
            granted = await self._fetched(source)
        except Unavailable:
            if known is not None and left_s > 0:
                return known.text
            raise
        if len(self._tokens) >= _MOST_TOKENS:  # sources come and go with the agents' settings
            self._tokens.clear()
        self._tokens[source] = _Token(text=granted.access_token, expires_at=self._clock() + granted.expires_in)
        return granted.access_token

    async def _fetched(self, source: Source) -> Granted:
        if isinstance(source, Metadata):
            body = await self._metadata(source, f"{_ACCOUNT}?{urlencode({'scopes': SCOPE})}")
            return read_granted(self._provider, body)
        if isinstance(source, CredentialsFile | CredentialsJson):
            return await self._grants.fetch(await asyncio.to_thread(read_credentials, source))
        raise AuthenticationFailed("a key of express mode is no token", provider=self._provider)

    async def _metadata(self, source: Metadata, path: str) -> bytes:
        url = f"http://{source.host}/{path}"
        headers = {"metadata-flavor": "Google"}
        try:
            return await self._transport.get_json(self._provider, url, headers, _METADATA_LIMITS)
        except InvalidRequest as error:
            said = f"{self._provider}: this machine has no service account: {error}"
            raise AuthenticationFailed(said, provider=self._provider) from error
        except ProviderError as error:
            known = source in self._tokens
            if known or error.status is not None or not isinstance(error, Unavailable | ProviderTimeout):
                raise
            said = f"{self._provider}: there are no Google credentials, and this machine is not on Google Cloud: {_HOW}"
            raise AuthenticationFailed(said, provider=self._provider) from error

    async def _found_project(self, source: Source) -> str:
        if isinstance(source, Metadata):
            return (await self._metadata(source, _PROJECT)).decode("utf-8", "replace").strip()
        if isinstance(source, CredentialsFile | CredentialsJson):
            stored = await asyncio.to_thread(read_credentials, source)
            return stored.project_id or stored.quota_project_id
        return ""

    def _lock(self, source: Source) -> asyncio.Lock:
        locks = self._locks.setdefault(asyncio.get_running_loop(), {})
        if len(locks) >= _MOST_TOKENS:
            for idle in [each for each, lock in locks.items() if not lock.locked()]:
                del locks[idle]
        return locks.setdefault(source, asyncio.Lock())
