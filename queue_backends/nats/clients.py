"""What the driver does not do by itself: listen over lost connections, check a server, give up a broken one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, cast

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from queue_backends.errors import BackendMisconfigured

COMMAND_TIMEOUT_S = 10.0
CLOSE_WITHIN_S = 1.0
OLDEST_SERVER = (2, 14, 6)
"""Atomic batches, which every commit is, came with 2.12; but up to 2.14.3 a batch with several expectations is now and
then refused although all of them hold."""

Receive = Callable[[Msg], Awaitable[None]]
log = structlog.get_logger(__name__)


class TellingClient(Client):
    """A client that tells of its end, whatever the end is like. The driver sends what is pending before it closes: if
    the connection is broken already, that may raise, and nobody would hear that it is closed."""

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        try:
            await super()._close(status, do_cbs)
        except Exception as error:  # noqa: BLE001 - as in `abandon`
            log.debug("NATS", error=str(error))
            _abort(self)
            if do_cbs and self._closed_cb is not None:
                await self._closed_cb()


class Listening:
    """A core subject that somebody listens to, over lost connections, until `stop`."""

    def __init__(self, subject: str, receive: Receive) -> None:
        self.subject = subject
        self._receive = receive
        self._subscription: Subscription | None = None

    async def begin(self, client: Client) -> None:
        """Listen on this connection."""
        self._subscription = await client.subscribe(self.subject, cb=self._receive)

    async def stop(self) -> None:
        """Listen no more; what is on its way is lost."""
        with contextlib.suppress(nats.errors.Error):  # the connection may be closed
            if self._subscription is not None:
                await self._subscription.unsubscribe()

    async def drain(self) -> bool:
        """Listen no more, and return when all that was on its way is here; says whether the server answered."""
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                if self._subscription is not None:
                    await cast("Any", self._subscription).drain()
        except (nats.errors.Error, TimeoutError):
            return False
        return self._subscription is not None


def check_version(client: Client) -> None:
    """Raise `BackendMisconfigured` for a server that is too old."""
    version = client.connected_server_version
    if (version.major, version.minor, version.patch) < OLDEST_SERVER:
        raise BackendMisconfigured(
            f"the NATS server is version {version.major}.{version.minor}.{version.patch}, too old: "
            f"{'.'.join(map(str, OLDEST_SERVER))} or newer is needed"
        )


async def abandon(client: Client) -> None:
    """Close a connection, also one that leads nowhere or was never made."""
    try:
        async with asyncio.timeout(CLOSE_WITHIN_S):
            if not client.is_closed:
                await client.close()
    except Exception as error:  # noqa: BLE001 - whatever the driver makes of a broken connection, it is given up
        log.debug("NATS", error=str(error))
    # The driver leaves the socket open if the greeting failed, and waits for ever for a peer that takes no data.
    _abort(client)


def _abort(client: Client) -> None:
    writer = vars(vars(client).get("_transport") or object).get("_io_writer")
    if writer is not None:
        writer.transport.abort()
