"""Keeps requests to addresses that somebody else chose away from this machine, its network and the cloud's metadata.

Every connection is checked at the last moment: with the very address that it goes to, when its socket is made. What a
name resolves to before or afterwards does not matter, nor how an address is spelt. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from providers import ProviderError
from providers.calls import Response
from providers.transport import Transport
from worker.errors import WorkerError
from worker.settings.addresses import parse_allowed

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA: Final = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
    )
)
"""Where clouds tell machines their credentials: AWS and most others, ECS, Alibaba, Azure's host, Oracle; over IPv6 AWS,
EKS, Google, Oracle."""
_IPV4_INSIDE: Final = tuple(ipaddress.ip_network(text) for text in ("64:ff9b::/96", "::ffff:0:0:0/96", "::/96"))
"""IPv6 addresses whose last four bytes are the IPv4 address that is meant: NAT64, SIIT, and the oldest form."""
_PUBLIC_IPV6: Final = ipaddress.ip_network("2000::/3")
_NOT_PUBLIC: Final = tuple(ipaddress.ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20"))
"""What the library of some Python versions takes for public: protocol assignments, the old relays, documentation."""
_WEB_PORTS: Final = frozenset({80, 443})
_OTHER_SERVICES: Final = frozenset({*range(1024), 2049, 3306, 5432, 6379, 11211, 27017}) - _WEB_PORTS
"""Ports of services that are no web servers: mail, shells, databases."""

_refused: ContextVar[list[str] | None] = ContextVar("refused addresses", default=None)


class AddressRefused(WorkerError):
    """A request would have gone where none may go. The message names the address and the setting that allows it."""


class Reach(enum.Enum):
    """How far requests may go."""

    PUBLIC = "public"
    """Addresses of the public internet alone: for whatever callers, models or other servers name."""
    NETWORK = "network"
    """Also this machine and private networks, as the operator's own settings name them; not where clouds keep
    credentials, which no operator means, but which a name in somebody else's hands may come to mean."""


class NetGuard:
    """Which addresses may be connected to. `allowed`: host names, addresses, networks, or `all`."""

    def __init__(self, reach: Reach = Reach.PUBLIC, *, allowed: Iterable[str] = ()) -> None:
        """Raises `BadSetting` for what is neither a host name nor a network."""
        self._reach = reach
        self._allowed = parse_allowed(allowed)

    def check_url(self, url: str) -> None:
        """What can be said before a name is resolved: scheme, user name, port, and addresses that are written out.

        Raises `AddressRefused`.
        """
        host, port = _parts(url)
        if self._is_named(host):
            return
        if self._reach is Reach.PUBLIC and port in _OTHER_SERVICES:
            raise AddressRefused(f"port {port} of {host!r} is no web server's: use 80, 443, or one above 1023")
        address = _literal(host)
        if address is not None:
            self.check_address(address)

    def check_address(self, address: Address) -> None:
        """Raises `AddressRefused` for an address that may not be connected to."""
        real = _unwrapped(address)
        allowed = self._allowed
        if allowed.has_all or any(real in network for network in allowed.networks if network.version == real.version):
            return
        kind = _kind(real, self._reach)
        if kind:
            raise AddressRefused(_told(str(real), kind))

    def http(self) -> GuardedHttp:
        """HTTP through this guard. Close it with `aclose`."""
        return GuardedHttp(self)

    @property
    def uses_proxies(self) -> bool:
        """Whether requests may take those of the environment, which connect to addresses that nobody has looked at."""
        return self._reach is not Reach.PUBLIC

    async def addresses(self, host: str, port: int) -> list[str]:
        """Where a connection to `host` may go now, for clients that are told an address instead of a name. Raises
        `AddressRefused` if nowhere, `OSError` for a name that is none."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        if self._is_named(host):
            return addresses
        allowed, refused = [], ""
        for address in addresses:
            try:
                self.check_address(ipaddress.ip_address(address.partition("%")[0]))
                allowed.append(address)
            except AddressRefused as error:
                refused = refused or str(error)
        if refused and not allowed:
            raise AddressRefused(f"{host!r} is refused: {refused}")
        return allowed

    def _is_named(self, host: str) -> bool:
        return self._allowed.has_all or host in self._allowed.hosts

    def _open_socket(self, info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        try:
            self.check_address(ipaddress.ip_address(str(address[0]).partition("%")[0]))
        except AddressRefused as error:
            told = _refused.get()
            if told is not None:
                told.append(str(error))
            raise PermissionError(errno.EACCES, str(error)) from None
        return socket.socket(family, kind, protocol)


class GuardedHttp:
    """HTTP requests that go where the guard lets them. The same calls as `Transport.request`."""

    def __init__(self, guard: NetGuard) -> None:
        self._guard = guard
        self._checked = Transport(open_socket=guard._open_socket, uses_proxies=False)  # noqa: SLF001 - of one module
        self._trusted = Transport()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        timeout_s: float = 30.0,
        connect_timeout_s: float = 10.0,
        cert: tuple[str, str] | None = None,
        max_body_bytes: int = 1024 * 1024,
    ) -> Response:
        """One request: no retry, no redirect, any status. The whole exchange takes at most `timeout_s`.

        Raises `AddressRefused`, and what `Transport.request` raises.
        """
        self._guard.check_url(url)
        host, _ = _parts(url)
        http = self._trusted if self._guard._is_named(host) else self._checked  # noqa: SLF001 - as above
        told: list[str] = []
        before = _refused.set(told)
        try:
            return await http.request(
                method,
                url,
                headers=headers,
                content=content,
                timeout_s=timeout_s,
                connect_timeout_s=connect_timeout_s,
                cert=cert,
                max_body_bytes=max_body_bytes,
            )
        except ProviderError as error:
            if told:
                raise AddressRefused(f"{host!r} is refused: {told[0]}") from error
            raise
        finally:
            _refused.reset(before)

    async def aclose(self) -> None:
        """Close the connections of the current event loop."""
        await self._checked.aclose()
        await self._trusted.aclose()


Http: TypeAlias = Transport | GuardedHttp
"""What makes plain requests."""


def guarded_transport(allowed: Iterable[str] = ()) -> Transport:
    """A transport for addresses in the operator's own settings: everything but where clouds keep credentials."""
    guard = NetGuard(Reach.NETWORK, allowed=allowed)
    return Transport(open_socket=guard._open_socket)  # noqa: SLF001 - of the same module


def _parts(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise AddressRefused(f"this is no address that can be called: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise AddressRefused(f"scheme {parts.scheme[:20]!r} is refused: use https:// or http://")
    if not parts.hostname:
        raise AddressRefused("the address names no host: use https://host/path")
    if parts.username or parts.password:
        raise AddressRefused("user name and password in an address are refused: send a header instead")
    return parts.hostname.rstrip("."), port or (443 if parts.scheme == "https" else 80)


def _literal(host: str) -> Address | None:
    """An address that is written out, in any form that a resolver would understand: `127.1`, `0x7f000001`."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.ip_address(socket.inet_aton(host)) if host[-1:].isalnum() and host[:1].isdigit() else None
    except (OSError, ValueError):
        return None


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, if it stands for one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    is_of_its_own = address.is_loopback or address.is_unspecified
    if not is_of_its_own and any(address in network for network in _IPV4_INSIDE):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _kind(address: Address, reach: Reach) -> str:
    """What is wrong with an address; empty: nothing."""
    if address in _METADATA or address.is_link_local:
        return "a link-local or metadata address"
    if address.is_multicast:
        return "a multicast address"
    if reach is Reach.NETWORK:
        return ""
    if address.is_loopback or address.is_unspecified:
        return "this machine"
    if not _is_public(address):
        return "a private or reserved address"
    return ""


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in _PUBLIC_IPV6:
        return False  # site-local ones and those of a network's own NAT64 are "global" to the library
    return address.is_global and not any(
        address in network for network in _NOT_PUBLIC if network.version == address.version
    )


def _told(what: str, kind: str) -> str:
    return f"{what} is {kind}; to allow it, add it to SHOAL_ALLOW_PRIVATE_ADDRESSES"
