"""Where a peer is: `host:port`, or `grpcs://host:port` for one behind TLS."""

from __future__ import annotations

from msgspec import Struct

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
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError(f"{text!r} is no address: use host:port")
    return Address(host, int(port), tls)


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port to listen on: `host:port`, or `:port` for every interface; port 0 is any free one.

    Raises `ValueError`.
    """
    host, colon, port = text.strip().rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{text!r} is no address to listen on: use host:port")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104 - that is what ":port" says
