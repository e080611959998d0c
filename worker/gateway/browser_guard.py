"""Keeps web pages of others from using a gateway that asks for no key.

Such a gateway listens on this machine alone; but a browser on this machine runs code from everywhere. What it sends is
told apart by `Host` (a name of an attacker's that leads to 127.0.0.1: DNS rebinding), by `Origin` and by
`Sec-Fetch-Site`. A gateway that asks for keys needs none of this: a key is never sent by itself, as a cookie is.
"""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from worker.gateway.peers import FORWARDING
from worker.gateway.problem import Problem
from worker.settings.gateway import GatewaySettings

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class BrowserGuard:
    """Raises `Problem` for what an attacker's page would send."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._hosts = frozenset(host.lower() for host in settings.allowed_hosts)
        self._origins = frozenset(origin.lower() for origin in settings.cors_origins)
        self._own = settings.host.strip("[]").lower()

    def check(self, request: Request, *, is_open: bool) -> None:
        """`is_open`: no key is asked for."""
        self._check_host(request, is_open=is_open)
        if is_open:
            self._check_forwarding(request)
            self._check_origin(request)

    def _check_host(self, request: Request, *, is_open: bool) -> None:
        if not is_open and not self._hosts:
            return
        host = _host(request.headers.get("host", ""))
        if host in self._hosts or (is_open and (host == self._own or _is_loopback(host))):
            return
        raise Problem(
            421, f"host {host[:200]!r} is not served here: add it to SHOAL_ALLOWED_HOSTS", code="host_not_allowed"
        )

    def _check_forwarding(self, request: Request) -> None:
        if any(name in request.headers for name in FORWARDING):
            raise Problem(
                403,
                "a proxy stands before this gateway, which asks for no key: create one with `shoal key create`",
                code="open_gateway",
            )

    def _check_origin(self, request: Request) -> None:
        origin = request.headers.get("origin", "").lower()
        if origin and (origin in self._origins or _netloc(origin) == request.headers.get("host", "").lower()):
            return
        site = request.headers.get("sec-fetch-site", "").strip().lower()
        is_foreign = bool(origin) or site not in ("", "none", "same-origin")
        is_navigation = request.headers.get("sec-fetch-mode", "") == "navigate"
        is_harmless = request.method in _SAFE_METHODS and (is_navigation or not site)
        if is_foreign and not is_harmless:
            raise Problem(
                403,
                "a page of another origin may not use this gateway: add its origin to SHOAL_CORS_ORIGINS",
                code="foreign_origin",
            )


def _host(header: str) -> str:
    try:
        return (urlsplit(f"//{header}").hostname or "").lower().rstrip(".")
    except ValueError:
        return ""


def _netloc(origin: str) -> str:
    return urlsplit(origin).netloc


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
