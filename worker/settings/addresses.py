"""The setting `allow_private_addresses`: host names, addresses and networks, or `all`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final, TypeAlias

from msgspec import Struct

from worker.errors import BadSetting

EVERYTHING: Final = "all"
"""No address is refused."""

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class AllowedAddresses(Struct, frozen=True, kw_only=True):
    """Where requests may go although it is not public."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    has_all: bool = False


def parse_allowed(entries: Iterable[str]) -> AllowedAddresses:
    """Read the setting. Raises `BadSetting`."""
    hosts: set[str] = set()
    networks: list[Network] = []
    has_all = False
    for entry in entries:
        text = entry.strip().lower().strip("[]")
        if text == EVERYTHING:
            has_all = True
        elif "/" in text or ":" in text or text.replace(".", "").isdigit():
            networks.append(_network(entry, text))
        else:
            hosts.add(text.rstrip("."))
    return AllowedAddresses(hosts=frozenset(hosts), networks=tuple(networks), has_all=has_all)


def _network(entry: str, text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise BadSetting(
            f"allow_private_addresses: {entry!r} is no address or network: {error}; use a host name, 10.0.0.5, "
            "10.0.0.0/8 or 'all'"
        ) from None
