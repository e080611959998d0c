"""Where a request comes from, if a proxy is between."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

FORWARDING: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


class Peers:
    """Believes `X-Forwarded-For` and `X-Forwarded-Proto` of trusted proxies, and of nobody else."""

    def __init__(self, trusted_proxies: Iterable[str]) -> None:
        self._trusted = [ipaddress.ip_network(network) for network in trusted_proxies]

    def settle(self, scope: Scope, headers: Headers) -> str:
        """The address of the client; the scope's client and scheme are corrected."""
        peer = scope["client"][0] if scope.get("client") else ""
        if not self._trusted or not self.trusts(peer):
            return peer
        if headers.get("x-forwarded-proto", "").strip().lower() == "https":
            scope["scheme"] = "https"
        client = self._first_stranger(headers.getlist("x-forwarded-for")) or peer
        scope["client"] = (client, 0)
        return client

    def trusts(self, address: str) -> bool:
        """Whether an address is a trusted proxy's."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped  # how IPv4 arrives at a socket for both
        return any(parsed in network for network in self._trusted if network.version == parsed.version)

    def _first_stranger(self, values: list[str]) -> str:
        """The last address in the chain that no trusted proxy has: what stands before it, the client may have written
        itself."""
        for part in reversed(",".join(values).split(",")):
            address = _address(part.strip())
            if not address:
                return ""
            if not self.trusts(address):
                return address
        return ""


def _address(text: str) -> str:
    for candidate in (text, text.strip("[]"), text.rpartition(":")[0].strip("[]")):
        try:
            return str(ipaddress.ip_address(candidate))
        except ValueError:
            continue
    return ""
