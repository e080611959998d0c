"""Tokens of an OpenID Connect issuer: checked with its published keys, and read into a caller.

Sources: OpenID Connect Discovery 1.0 (where the keys are), RFC 7517 (keys), RFC 7519 (tokens), RFC 8725 (what to
refuse).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import jwt
import structlog

from worker.gateway.auth import unauthenticated
from worker.gateway.caller import Caller, Scope
from worker.gateway.claims import at, texts
from worker.gateway.issuer_keys import IssuerKey, IssuerKeys, IssuerUnavailable
from worker.gateway.problem import Problem
from worker.objects import BadObject
from worker.objects.slug import check_slug
from worker.settings.gateway import ALGORITHMS, GatewaySettings

_MOST_CHARS: Final = 16_384
_MOST_SUBJECT_CHARS: Final = 255
"""OpenID Connect Core 1.0, section 2."""
_SCOPES: Final = frozenset(Scope)

log = structlog.get_logger(__name__)


class Oidc:
    """Callers by token of one issuer."""

    def __init__(self, settings: GatewaySettings, keys: IssuerKeys) -> None:
        self._settings = settings
        self._keys = keys
        self._algorithms = [name for name in settings.oidc_algorithms if name in ALGORITHMS]

    async def caller_of(self, token: str) -> Caller:
        """Who a token is about. Raises `Problem` 401 for one that is not to be trusted, 503 if that cannot be told."""
        claims = await self._claims(token)
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= _MOST_SUBJECT_CHARS:
            raise _refused(f"the token names no subject of at most {_MOST_SUBJECT_CHARS} characters")
        return self._caller(claims, subject)

    async def _claims(self, token: str) -> Mapping[str, Any]:
        if len(token) > _MOST_CHARS:
            raise _refused("the token is too long")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise _refused("this is neither an API key nor a token") from None
        algorithm = header.get("alg")
        if algorithm not in self._algorithms:
            raise _refused("the token is signed in a way that is not taken here")
        try:
            key = await self._keys.find(header.get("kid"), str(algorithm))
        except IssuerUnavailable as error:
            raise Problem(503, str(error), code="issuer_unavailable", headers={"Retry-After": "5"}) from error
        if key is None:
            raise _refused("the token is signed with a key that its issuer does not publish")
        return self._verified(token, key, str(algorithm))

    def _verified(self, token: str, key: IssuerKey, algorithm: str) -> Mapping[str, Any]:
        settings = self._settings
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key=key.key,
                algorithms=[algorithm],
                audience=list(settings.oidc_audience),
                issuer=settings.oidc_issuer,
                leeway=settings.oidc_leeway_s,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.InvalidTokenError as error:
            log.info("a token was refused", reason=f"{type(error).__name__}: {error}")
            raise _refused(_REASONS.get(type(error), "the token is not valid")) from None
        return claims

    def _caller(self, claims: Mapping[str, Any], subject: str) -> Caller:
        settings = self._settings
        groups = texts(at(claims, settings.oidc_groups_claim))
        tenant = ""
        if settings.oidc_tenant_claim:
            found = at(claims, settings.oidc_tenant_claim)
            if not isinstance(found, str) or not found:  # without it, the caller would see all tenants
                raise _refused(f"the token has no claim {settings.oidc_tenant_claim!r}, which names the tenant")
            try:
                check_slug(f"claim {settings.oidc_tenant_claim}", found)  # as a key's tenant is: it becomes an address
            except BadObject as error:
                raise _refused(str(error)) from None
            tenant = found
        name = claims.get(settings.oidc_name_claim)
        return Caller(
            id=f"oidc:{settings.oidc_issuer}:{subject}",
            name=name if isinstance(name, str) else subject,
            scopes=self._scopes(texts(at(claims, settings.oidc_scope_claim)), groups),
            groups=frozenset(groups),
            tenant=tenant,
            expires_at=float(claims["exp"]) + settings.oidc_leeway_s,
        )

    def _scopes(self, claimed: Sequence[str], groups: Sequence[str]) -> frozenset[Scope]:
        """What the settings say that claimed scopes and groups mean. Without a mapping, scopes mean themselves, and
        groups nothing: an issuer's group `admin` need not be meant for this gateway."""
        settings = self._settings
        given = set(settings.oidc_default_scopes)
        if settings.oidc_scopes:
            given.update(scope for name in (*claimed, *groups) for scope in settings.oidc_scopes.get(name, ()))
        else:
            given.update(claimed)
        return frozenset(Scope(scope) for scope in given if scope in _SCOPES)


def _refused(detail: str) -> Problem:
    return unauthenticated(detail, code="invalid_token")


_REASONS: Final[Mapping[type[Exception], str]] = {
    jwt.ExpiredSignatureError: "the token has expired",
    jwt.ImmatureSignatureError: "the token is not valid yet",
    jwt.InvalidAudienceError: "the token is meant for another audience",
    jwt.InvalidIssuerError: "the token is another issuer's",
    jwt.InvalidSignatureError: "the token's signature is wrong",
    jwt.MissingRequiredClaimError: "the token lacks a claim that it must have: exp, iss, aud and sub",
}
