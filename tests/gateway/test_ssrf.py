"""Requests to addresses that somebody else chose: what is refused, whatever name or spelling leads there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from providers import ProviderError, Unavailable
from worker.errors import BadSetting
from worker.net_guard import AddressRefused, NetGuard, Reach, guarded_transport
from worker.settings import Settings
from worker.settings.addresses import parse_allowed

REFUSED = [
    "http://127.0.0.1/",
    "http://127.0.0.1./",
    "http://127.1/",
    "http://0x7f000001/",
    "http://2130706433/",
    "http://017700000001/",
    "http://0.0.0.0/",
    "http://10.1.2.3/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://168.63.129.16/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[fe80::1%25eth0]/",
    "http://[fd00:ec2::254]/",
    "http://[ff02::1]/",
    "http://[::7f00:1]/",
    "http://[::ffff:0:7f00:1]/",
    "http://[64:ff9b:1::808:808]/",
    "http://[fec0::1]/",
    "http://[3fff::1]/",
    "http://192.0.0.192/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "http://example.com:22/",
    "http://example.com:6379/",
    "http://user:password@example.com/",
    "http:///nowhere",
    "http://example.com:port/",
    "",
]


class _Listener:
    """Counts who connects, and answers with a redirect to itself."""

    def __init__(self) -> None:
        self.requests = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        location = f"http://127.0.0.1:{self.port}/again".encode()
        writer.write(b"HTTP/1.1 302 Found\r\nlocation: " + location + b"\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()


@asynccontextmanager
async def _listening() -> AsyncIterator[_Listener]:
    listener = _Listener()
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0)
    listener.port = server.sockets[0].getsockname()[1]
    async with server:
        yield listener


@pytest.mark.parametrize("url", REFUSED)
def test_what_is_not_public_is_refused(url: str) -> None:
    """No spelling of a private address, and no scheme or port but the web's, passes."""
    with pytest.raises(AddressRefused):
        NetGuard().check_url(url)


@pytest.mark.parametrize("url", ["https://example.com/hook", "http://93.184.216.34:8080/", "https://[2606:4700::1]/"])
def test_public_addresses_pass(url: str) -> None:
    """What is public needs no permission."""
    NetGuard().check_url(url)


async def test_a_name_that_leads_to_this_machine_is_refused_when_it_connects() -> None:
    """The address itself is checked, not the name: a listener behind `localhost` hears nothing."""
    async with _listening() as listener:
        http = NetGuard().http()
        with pytest.raises(AddressRefused, match="SHOAL_ALLOW_PRIVATE_ADDRESSES"):
            await http.request("POST", f"http://localhost:{listener.port}/", content=b"{}")
        await http.aclose()
        assert listener.requests == 0


async def test_what_a_name_means_at_the_moment_of_connecting_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to a public address when it is looked at, and to a private one afterwards, is refused."""
    async with _listening() as listener:

        async def rebound(*_: Any, **__: Any) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", listener.port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebound)
        guard = NetGuard()
        guard.check_url(f"http://rebinding.example.com:{listener.port}/")
        http = guard.http()
        with pytest.raises(AddressRefused, match=r"127\.0\.0\.1"):
            await http.request("GET", f"http://rebinding.example.com:{listener.port}/")
        await http.aclose()
        assert listener.requests == 0


@pytest.mark.parametrize("allowed", ["localhost", "127.0.0.0/8", "127.0.0.1", "all"])
async def test_the_operator_may_allow_hosts_addresses_and_networks(allowed: str) -> None:
    """What the setting names is reached; a redirect is handed back, never followed."""
    async with _listening() as listener:
        host = "localhost" if allowed == "localhost" else "127.0.0.1"
        http = NetGuard(allowed=[allowed]).http()
        answer = await http.request("GET", f"http://{host}:{listener.port}/")
        await http.aclose()
        assert (answer.status, listener.requests) == (302, 1)


async def test_the_operators_own_addresses_reach_this_machine_but_no_metadata() -> None:
    """A webhook in the settings may be on localhost; where clouds keep credentials is refused all the same."""
    async with _listening() as listener:
        http = guarded_transport()
        answer = await http.request("GET", f"http://localhost:{listener.port}/")
        await http.aclose()
        assert answer.status == 302
    for address in ("169.254.169.254", "192.0.0.192", "[fd20:ce::254]", "[fd00:ec2::23]", "[::ffff:169.254.169.254]"):
        with pytest.raises(AddressRefused):
            NetGuard(Reach.NETWORK).check_url(f"http://{address}/latest/meta-data/")
    http = guarded_transport()
    with pytest.raises(Unavailable, match="metadata address"):
        await http.request("GET", "http://169.254.169.254/latest/meta-data/")
    await http.aclose()
    NetGuard(Reach.NETWORK).check_url("http://10.0.0.7:9000/hook")


@pytest.mark.parametrize("host", ["xn--localhost", "\u2460.example.com", "a" * 300, "a..b"])
async def test_a_name_that_cannot_be_one_is_told(host: str) -> None:
    """As any address that cannot be called, whatever the libraries make of it."""
    http = NetGuard().http()
    with pytest.raises(ProviderError):
        await http.request("GET", f"http://{host}/")
    await http.aclose()


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """One would connect to addresses that nobody has looked at."""
    async with _listening() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        http = NetGuard().http()
        with pytest.raises(ProviderError):
            await http.request("GET", "http://nowhere.invalid/")
        await http.aclose()
        assert proxy.requests == 0


def test_a_wrong_entry_is_named() -> None:
    """A typo in the setting is told, instead of allowing nothing silently."""
    with pytest.raises(BadSetting, match=r"10\.0\.0\.0/99"):
        parse_allowed(["10.0.0.0/99"])
    assert Settings().allow_private_addresses == ()
