"""Addresses go over the wire as they are written."""

from __future__ import annotations

import pytest

from providers.replay_server import ReplayServer, Reply
from providers.transport import Transport

pytestmark = pytest.mark.timeout(20)


@pytest.mark.parametrize(
    "target", ["/model/a.b-v1%3A0/x", "/a%2Fb/%7E%41", "/plain?x=%3A%2B&y=a+b&z=%41", "/a:b@c,d;e=f!$&'()*+"]
)
async def test_targets(target: str) -> None:
    """What is encoded stays so, what is not does, too: a signature covers every letter."""
    transport = Transport()
    async with ReplayServer([Reply(content_type="application/json")]) as server:
        await transport.request("GET", server.url + target)
        assert server.requests[0].target == target
    await transport.aclose()


async def test_what_no_address_can_have() -> None:
    """Spaces and other letters than ASCII's are encoded, since nothing else could be sent."""
    transport = Transport()
    async with ReplayServer([Reply(content_type="application/json")]) as server:
        await transport.request("GET", server.url + "/a b/ü")
        assert server.requests[0].target == "/a%20b/%C3%BC"
    await transport.aclose()
