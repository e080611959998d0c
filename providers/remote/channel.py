"""A connection to a peer: calls with JSON bodies, over gRPC's HTTP/2, in the peer's dialect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from providers.errors import ProviderError
from providers.remote.addresses import Address
from providers.remote.dialect import Dialect

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
KEEPALIVE_S = 30.0
KEEPALIVE_TIMEOUT_S = 10.0


class ChannelOptions(Struct, frozen=True, kw_only=True):
    """How to connect, and as whom."""

    token: str = ""
    """Shared secret, sent as `authorization: Bearer …`; empty: none is sent."""
    plugin_name: str = ""
    """Who calls, for the `x-plugin-name` of Go peers; only plugins say so."""
    ca_file: str = ""
    """Certificates that a peer behind TLS is checked against; empty: the system's."""
    max_message_bytes: int = MAX_MESSAGE_BYTES

    def __repr__(self) -> str:
        return f"ChannelOptions(plugin_name={self.plugin_name!r}, ca_file={self.ca_file!r})"

    def trusted(self) -> bytes | None:
        """The certificates in `ca_file`, None for the system's. Raises `ProviderError` if it cannot be read."""
        if not self.ca_file:
            return None
        try:
            return Path(self.ca_file).read_bytes()
        except OSError as error:
            raise ProviderError(f"TLS: {error.filename} cannot be read: {error.strerror}") from error

    def metadata(self, dialect: Dialect) -> list[tuple[str, str]]:
        """What goes along with each call."""
        sent = [("authorization", f"Bearer {self.token}")] if self.token else []
        if self.plugin_name and dialect is Dialect.GO:
            sent.append(("x-plugin-name", self.plugin_name))
        return sent


class PluginChannel(Protocol):
    """One connection, made with the first call and anew after a loss. Use it in one event loop only."""

    async def unary(self, method: str, body: bytes, *, timeout_s: float | None) -> bytes:
        """One request, one answer. `method` is `/service/Name`. Raises `CallFailed`; cancellation ends the call at the
        peer's, too."""
        ...

    def stream(self, method: str, body: bytes) -> AsyncIterator[bytes]:
        """One request, many answers; an async generator, whose closing ends the call. Raises `CallFailed`."""
        ...

    async def aclose(self) -> None:
        """End all calls and the connection."""
        ...


def open_channel(address: Address, dialect: Dialect, options: ChannelOptions | None = None) -> PluginChannel:
    """A channel to a peer. Go peers choose their codec by the request's content subtype, which grpcio cannot send;
    Python peers answer without one, which grpclib does not take: hence two clients.

    Raises `ProviderError` if the library is not installed.
    """
    options = options or ChannelOptions()
    if dialect is Dialect.GO:
        from providers.remote.go_channel import GoChannel

        return GoChannel(address, options)
    from providers.remote.python_channel import PythonChannel

    return PythonChannel(address, options)
