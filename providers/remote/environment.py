"""What a plugin process is told by its environment.

| variable | default | meaning |
|---|---|---|
| `MIRASTACK_ENGINE_ADDR` | - | the engine's `host:9090`, or `grpcs://…` behind TLS; empty: serve without registering |
| `MIRASTACK_PLUGIN_ADDR` | loopback, or every interface for an engine elsewhere | listen address |
| `MIRASTACK_PLUGIN_ADVERTISE_ADDR` | loopback, or the host's name, and the port | where the engine finds us |
| `MIRASTACK_PLUGIN_TENANT_ID`, `_TENANT_SLUG` | - | whom the plugin serves; neither: everybody |
| `MIRASTACK_PLUGIN_HEARTBEAT_INTERVAL` | 30 s, or the engine's | seconds, at least 1 |
| `MIRASTACK_PLUGIN_MAX_MESSAGE_BYTES` | 67108864 | longest message, both ways |
| `SHOAL_PLUGIN_TOKEN` | - | shared secret with the engine |
| `SHOAL_PLUGIN_TLS_CERT`, `_TLS_KEY` | - | files; both: serve TLS |
| `SHOAL_PLUGIN_CA` | the system's | certificates that the engine's is checked against |
"""

from __future__ import annotations

import ipaddress
import math
import socket
from collections.abc import Mapping
from typing import Self

from msgspec import Struct

from providers.errors import InvalidRequest
from providers.remote.addresses import Address, parse_address, parse_listen
from providers.remote.channel import MAX_MESSAGE_BYTES, ChannelOptions
from providers.remote.json_server import ServerOptions
from providers.remote.tenants import tenant_id

ENGINE_PORT = 9090
HEARTBEAT_S = 30.0
LEAST_HEARTBEAT_S = 1.0


class PluginEnvironment(Struct, frozen=True, kw_only=True):
    """The variables, read."""

    engine: Address | None = None
    listen: tuple[str, int] = ("127.0.0.1", 0)
    advertised: str = ""
    tenant_id: str = ""
    heartbeat_s: float | None = None
    """None: as the engine wishes."""
    token: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    ca_file: str = ""
    max_message_bytes: int = MAX_MESSAGE_BYTES

    def __repr__(self) -> str:
        return f"PluginEnvironment(engine={self.engine}, listen={self.listen}, tenant_id={self.tenant_id!r})"

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Read the variables. Raises `InvalidRequest` that names the wrong one."""

        def text(name: str) -> str:
            return environ.get(name, "").strip()

        engine = _address("MIRASTACK_ENGINE_ADDR", text("MIRASTACK_ENGINE_ADDR"))
        tenant = text("MIRASTACK_PLUGIN_TENANT_ID") or tenant_id(text("MIRASTACK_PLUGIN_TENANT_SLUG"))
        beat_s = _number("MIRASTACK_PLUGIN_HEARTBEAT_INTERVAL", text("MIRASTACK_PLUGIN_HEARTBEAT_INTERVAL"))
        most = _number("MIRASTACK_PLUGIN_MAX_MESSAGE_BYTES", text("MIRASTACK_PLUGIN_MAX_MESSAGE_BYTES"))
        cert, key = text("SHOAL_PLUGIN_TLS_CERT"), text("SHOAL_PLUGIN_TLS_KEY")
        if bool(cert) != bool(key):
            raise InvalidRequest("set both SHOAL_PLUGIN_TLS_CERT and SHOAL_PLUGIN_TLS_KEY, or neither")
        return cls(
            engine=engine,
            listen=_listen(text("MIRASTACK_PLUGIN_ADDR"), engine),
            advertised=text("MIRASTACK_PLUGIN_ADVERTISE_ADDR"),
            tenant_id=tenant,
            heartbeat_s=max(LEAST_HEARTBEAT_S, beat_s) if beat_s else None,
            token=text("SHOAL_PLUGIN_TOKEN"),
            tls_cert=cert,
            tls_key=key,
            ca_file=text("SHOAL_PLUGIN_CA"),
            max_message_bytes=int(most) if most else MAX_MESSAGE_BYTES,
        )

    def advertised_at(self, port: int) -> str:
        """Where the engine finds us, who listen on `port`."""
        if self.advertised:
            return self.advertised
        host = self.listen[0]
        if host in {"0.0.0.0", "::"}:  # noqa: S104 - a comparison
            host = socket.gethostname()
        return str(Address(host, port, tls=bool(self.tls_cert)))

    def server_options(self) -> ServerOptions:
        """How we serve."""
        return ServerOptions(
            token=self.token, tls_cert=self.tls_cert, tls_key=self.tls_key, max_message_bytes=self.max_message_bytes
        )

    def channel_options(self, name: str) -> ChannelOptions:
        """How we call the engine."""
        return ChannelOptions(
            token=self.token, plugin_name=name, ca_file=self.ca_file, max_message_bytes=self.max_message_bytes
        )


def _address(name: str, text: str) -> Address | None:
    try:
        return parse_address(text, default_port=ENGINE_PORT) if text else None
    except ValueError as error:
        raise InvalidRequest(f"invalid {name}: {error}") from error


def _listen(text: str, engine: Address | None) -> tuple[str, int]:
    """An engine on another machine can reach us only if we listen for it."""
    if not text:
        return ("127.0.0.1", 0) if engine is None or is_loopback(engine.host) else ("::", 0)
    try:
        return parse_listen(text)
    except ValueError as error:
        raise InvalidRequest(f"invalid MIRASTACK_PLUGIN_ADDR: {error}") from error


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, seen from itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _number(name: str, text: str) -> float | None:
    try:
        found = float(text.removesuffix("s")) if text else None
    except ValueError:
        found = math.nan
    if found is not None and not 0 <= found < math.inf:
        raise InvalidRequest(f"invalid {name} {text!r}: use a number of seconds or bytes")
    return found
