"""Where an Ollama server is: the forms that `OLLAMA_HOST` may have."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from providers.errors import InvalidRequest

DEFAULT_PORT = 11434
CLOUD_HOST = "ollama.com"

_PORTS = {"http": 80, "https": 443}


def address(text: str) -> str:
    """The base URL that `text` means: a host, `host:port`, `:port`, or a URL; empty means this machine.

    As Ollama's own clients read it: without a scheme it is `http` and port 11434. A server's own setting may say
    `0.0.0.0`, all interfaces: a client then means this machine. `/v1` and `/api` at the end, which other clients want,
    are taken off. Raises `InvalidRequest` if it is no address.
    """
    scheme, with_scheme, rest = text.strip().partition("://")
    if not with_scheme:
        scheme, rest = "http", text.strip()
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        host, port = parts.hostname or "127.0.0.1", parts.port
    except ValueError as error:
        raise InvalidRequest(_NO_ADDRESS) from error
    if scheme not in _PORTS:
        raise InvalidRequest(_NO_ADDRESS)
    if not with_scheme and host == CLOUD_HOST and port is None:
        scheme = "https"
    userinfo = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    default_port = _PORTS[scheme] if with_scheme or scheme == "https" else DEFAULT_PORT
    path = parts.path.rstrip("/").removesuffix("/v1").removesuffix("/api")
    return f"{scheme}://{userinfo}{_connectable(host)}:{port or default_port}{path}"


def is_cloud(base_url: str) -> bool:
    """Whether this is Ollama's own service, which wants a key."""
    host = urlsplit(base_url).hostname or ""
    return host == CLOUD_HOST or host.endswith("." + CLOUD_HOST)


def _connectable(host: str) -> str:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return host
    if ip.is_unspecified:
        return "127.0.0.1" if ip.version == 4 else "[::1]"
    return f"[{ip}]" if ip.version == 6 else host


_NO_ADDRESS = "the address of the Ollama server (base_url, or OLLAMA_HOST) cannot be read: use host, host:port or http://host:port"
