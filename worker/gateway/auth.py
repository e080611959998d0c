"""Who sends a request: by API key or token, or anybody, as long as the gateway is open."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog
from starlette.requests import Request

from worker.gateway.caller import Caller, Scope
from worker.gateway.credentials import credential_of
from worker.gateway.keys import PREFIX, ApiKeys
from worker.gateway.problem import ErrorStyle, Problem
from worker.settings.gateway import GatewaySettings

if TYPE_CHECKING:
    from worker.gateway.oidc import Oidc

LOCAL: Final = Caller(id="local", name="local", scopes=frozenset(Scope))
"""Whoever asks an open gateway."""
NOBODY: Final = Caller(id="anonymous")

log = structlog.get_logger(__name__)


class Authenticator:
    """Tells callers from strangers.

    A gateway with `auth: auto` is open as long as there is no key and no issuer; the first key closes it, and it stays
    closed, even if all keys are revoked.
    """

    def __init__(self, settings: GatewaySettings, keys: ApiKeys, oidc: Oidc | None = None) -> None:
        self._keys = keys
        self._oidc = oidc
        self._is_off = settings.auth == "off"
        self._is_closed = settings.auth == "required" or bool(settings.oidc_issuer)

    @property
    def is_open(self) -> bool:
        """Whether everybody who can connect may do everything."""
        if self._is_off:
            return True
        if not self._is_closed and self._keys.are_there:
            log.info("the first API key exists: from now on every request needs one")
            self._is_closed = True
        return not self._is_closed

    async def caller_of(self, request: Request, style: ErrorStyle) -> Caller:
        """Who asks. Raises `Problem` 401."""
        if self.is_open:
            return LOCAL
        credential = credential_of(request, style)
        if not credential:
            raise unauthenticated("no credential: send 'Authorization: Bearer …' or 'x-api-key: …' with a key")
        if not credential.startswith(PREFIX) and self._oidc is not None:
            return await self._oidc.caller_of(credential)
        caller = await self._keys.authenticate(credential)
        if caller is None:
            raise unauthenticated("this key is unknown, revoked or has expired", code="invalid_api_key")
        return caller

    def is_good(self, caller: Caller) -> bool:
        """Whether a caller that was let in would still be, as far as that can be told without asking it again."""
        if caller.expires_at is not None and time.time() >= caller.expires_at:
            return False
        return self.is_open if caller is LOCAL else self._keys.opens(caller.id)

    def requests_per_minute(self, caller: Caller) -> int | None:
        """The limit of a caller's own; None: it has none of its own."""
        return self._keys.requests_per_minute(caller.id)


def unauthenticated(detail: str, *, code: str = "unauthenticated") -> Problem:
    """401, in the words of RFC 6750."""
    challenge = 'Bearer realm="shoal"' + (', error="invalid_token"' if code != "unauthenticated" else "")
    return Problem(401, detail, code=code, headers={"WWW-Authenticate": challenge})
