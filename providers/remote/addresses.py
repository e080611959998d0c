"""Where a peer is: `host:port`, or `grpcs://host:port` for one behind TLS."""

from __future__ import annotations

import ipaddress
import re

from msgspec import Struct

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})")
_PLAIN = ("grpc://", "http://", "tcp://")
_TLS = ("grpcs://", "https://", "tls://")


class Address(Struct, frozen=True):
    """A peer's host and port."""

    host: str
    port: int
    tls: bool = False

    @property
    def target(self) -> str:
        """`host:port`, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"grpcs://{self.target}" if self.tls else self.target


def parse_address(text: str, *, default_port: int | None = None) -> Address:
    """Read an address. Raises `ValueError` that says what is wrong with it."""
    rest = text.strip()
    tls = rest.startswith(_TLS)
    for scheme in (*_TLS, *_PLAIN):
        rest = rest.removeprefix(scheme)
    host, colon, port = rest.rstrip("/").rpartition(":")
    if not colon or host.count(":") == 1 or port.endswith("]"):
        host, port = rest.rstrip("/"), str(default_port or "")
    host = host.removeprefix("[").removesuffix("]")
    if not _is_host(host) or not _is_port(port) or not int(port):
        raise ValueError(f"{text[:200]!r} is no address: use host:port")
    return Address(host, int(port), tls)


def _is_host(text: str) -> bool:
    """A name or an address; gRPC would take `unix:/path` and lists of addresses for a target as well."""
    if ":" not in text:
        return _HOST.fullmatch(text) is not None
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) < 65_536


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port to listen on: `host:port`, or `:port` for every interface; port 0 is any free one.

    Raises `ValueError`.
    """
    host, colon, port = text.strip().rpartition(":")
    if not colon or not _is_port(port):
        raise ValueError(f"{text!r} is no address to listen on: use host:port")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104 - that is what ":port" says
