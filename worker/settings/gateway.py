"""Settings of `shoal serve`'s HTTP side: the section `gateway`."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from msgspec import Struct

from worker.errors import BadSetting

AUTH_MODES = ("auto", "required", "off")
SCOPES = ("tasks.read", "tasks.write", "agents.use", "approvals.write", "ops.read", "ops.write", "admin")
"""Those of `worker.gateway.caller`, which stands above this."""
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Of tokens. None of them can be checked with a secret that the gateway would have to share."""

_LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})


class GatewaySettings(Struct, frozen=True, kw_only=True):
    """What each field means and allows: `worker.settings.table`."""

    host: str = "127.0.0.1"
    port: int = 8000
    public_url: str = ""
    auth: str = "auto"
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    tls_cert: str = ""
    tls_key: str = ""
    oidc_issuer: str = ""
    oidc_audience: tuple[str, ...] = ()
    oidc_jwks_url: str = ""
    oidc_algorithms: tuple[str, ...] = ("RS256", "ES256")
    oidc_leeway_s: float = 30.0
    oidc_name_claim: str = "name"
    oidc_groups_claim: str = "groups"
    oidc_tenant_claim: str = ""
    oidc_scope_claim: str = "scope"
    oidc_scopes: dict[str, tuple[str, ...]] = {}
    """Claimed scope or group -> scopes that it gives here."""
    oidc_default_scopes: tuple[str, ...] = ()
    requests_per_minute: int = 1200
    """Of one caller; 0: no limit."""
    burst: int = 200
    max_streams: int = 20_000
    max_streams_per_key: int = 10_000
    max_body_bytes: int = 16 * 1024 * 1024
    body_timeout_s: float = 30.0
    keep_alive_s: float = 65.0
    heartbeat_s: float = 15.0
    start_timeout_s: float = 60.0
    """0: no limit."""
    grace_s: float = 20.0

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host.lower() in _LOOPBACK_NAMES:
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    def check(self) -> None:
        """Raise `BadSetting` for what cannot work."""
        if bool(self.tls_cert) != bool(self.tls_key):
            raise BadSetting("gateway.tls_cert and gateway.tls_key: set both, or neither")
        if self.public_url:
            _check_public_url(self.public_url)
        for origin in self.cors_origins:
            _check_origin(origin)
        for network in self.trusted_proxies:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise BadSetting(f"gateway.trusted_proxies: {network!r} is no address or network: {error}") from None
        self._check_oidc()

    def _check_oidc(self) -> None:
        if unknown := sorted(set(self.oidc_algorithms) - set(ALGORITHMS)):
            raise BadSetting(f"gateway.oidc_algorithms: {unknown[0]!r} is not allowed: use {', '.join(ALGORITHMS)}")
        named = {*self.oidc_default_scopes, *(scope for scopes in self.oidc_scopes.values() for scope in scopes)}
        if unknown := sorted(named - set(SCOPES)):
            raise BadSetting(f"gateway.oidc_scopes: there is no scope {unknown[0]!r}: use {', '.join(SCOPES)}")
        if not self.oidc_issuer:
            return
        if not self.oidc_audience:
            raise BadSetting(
                "gateway.oidc_audience is empty: name the audience that tokens for this gateway have, or any token of "
                "the issuer would open it"
            )
        for name, url in (("oidc_issuer", self.oidc_issuer), ("oidc_jwks_url", self.oidc_jwks_url)):
            if url and not is_https_or_loopback(url):
                raise BadSetting(f"gateway.{name}: {url!r} must begin with https:// (http only on this machine)")


def is_https_or_loopback(url: str) -> bool:
    """Whether nobody between can change what comes from a URL."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return bool(parts.hostname)
    return parts.scheme == "http" and GatewaySettings(host=parts.hostname or "").is_loopback


def _check_public_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise BadSetting("gateway.public_url is no address: write it as https://shoal.example.com, or with a path")


def _check_origin(origin: str) -> None:
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query:
        raise BadSetting(
            f"gateway.cors_origins: {origin!r} is no origin: write each as https://app.example.com (no path, no '*')"
        )
