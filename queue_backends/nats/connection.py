"""The connection: how it is made, bounded in time, made anew, and how requests meet their replies."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from queue_backends.availability import Availability
from queue_backends.errors import BackendMisconfigured, BackendUnavailable, QueueError
from queue_backends.nats.address import Address
from queue_backends.nats.calls import Call, check_reply, status_of
from queue_backends.nats.clients import COMMAND_TIMEOUT_S, Listening, Receive, TellingClient, abandon, check_version
from queue_backends.nats.refusals import is_about_credentials, translated

CONNECT_TIMEOUT_S = 5
SHORTEST_SILENCE_S = 0.5
_FORBIDDEN = re.compile(r"permissions violation for (publish|subscription) to \"([^\"]+)\"", re.IGNORECASE)

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0

Headers = Mapping[str, str]
log = structlog.get_logger(__name__)


_decode_any = msgspec.json.Decoder(dict[str, Any]).decode


class Connection:
    """One connection to one of several servers, on which everything of a backend travels.

    When it is lost, every command that waits fails, and a new one is made in the background: nothing that was given up
    is sent late.
    """

    def __init__(self, address: Address, *, name: str = "", lease_s: float = 30.0) -> None:
        self.address = address
        self.api_prefix = f"$JS.{address.domain}.API" if address.domain else "$JS.API"
        self.availability = Availability(long_silence_s=max(lease_s / 2, SHORTEST_SILENCE_S))
        self.on_return: set[Callable[[], None]] = set()
        """Called after the connection was lost and is there again: what was announced meanwhile was missed."""
        self._name = name
        self._client = Client()
        self._calls: dict[str, Call] = {}
        self._numbers = itertools.count(1)
        self._inbox = f"_INBOX.{uuid.uuid4().hex}"
        self._closing = False
        self._returning: asyncio.Task[None] | None = None
        self._listening: set[Listening] = {Listening(f"{self._inbox}.*", self._received)}
        self._complaint = ""

    @property
    def max_payload(self) -> int:
        """The longest message that the server takes, in bytes."""
        return self._client.max_payload

    @property
    def is_connected(self) -> bool:
        """Whether commands can be sent now."""
        return self._client.is_connected

    async def open(self) -> None:
        """Connect, and check that the server will do. Raises `BackendUnavailable` or `BackendMisconfigured`."""
        failures: list[QueueError] = []
        servers = list(self.address.servers)
        random.shuffle(servers)
        for server in servers:
            try:
                client = await self._connect(server)
                await self._take_over(client)
            except QueueError as error:
                failures.append(error)
            else:
                return
        for failure in failures:
            if isinstance(failure, BackendMisconfigured):
                raise failure
        said = (f"{server}: {failure}" for server, failure in zip(servers, failures, strict=True))
        raise BackendUnavailable("; ".join(said))

    async def _connect(self, server: str) -> Client:
        client = TellingClient()
        noticed: list[Exception] = []

        async def failed(error: Exception) -> None:
            if client is self._client:
                self._noticed(error)
            else:
                noticed.append(error)

        async def lost() -> None:
            if client is self._client:
                self._lost()

        options = self.address.connect_options() | {
            "servers": [server],
            "name": self._name,
            "error_cb": failed,
            "closed_cb": lost,
            "allow_reconnect": False,
            "max_reconnect_attempts": 1,  # to connect at all: the driver knows no zero
            "reconnect_time_wait": 0,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "ping_interval": 10,
            "max_outstanding_pings": 2,
            "flush_timeout": COMMAND_TIMEOUT_S,
        }
        try:
            async with asyncio.timeout(2 * CONNECT_TIMEOUT_S):
                await client.connect(**options)
            check_version(client)
        except QueueError:
            await abandon(client)
            raise
        except Exception as error:
            await abandon(client)
            raise translated(next((each for each in noticed if is_about_credentials(each)), error)) from error
        except BaseException:
            await abandon(client)
            raise
        return client

    async def _take_over(self, client: Client) -> None:
        """From now on this one is used, by those who listen already, too."""
        try:
            for listening in list(self._listening):
                await listening.begin(client)
        except Exception as error:
            await abandon(client)
            raise translated(error) from error
        self._client = client
        self._complaint = ""
        self.availability.started(0.0)
        self.availability.answered()

    def _lost(self) -> None:
        if self._closing:
            return
        lost = "the connection to the NATS server is lost"
        self.availability.failed(BackendUnavailable(lost))
        for call in list(self._calls.values()):
            call.fail(BackendUnavailable(f"{lost}: whether the command was carried out is not known"))
        if self._returning is None or self._returning.done():
            self._returning = asyncio.create_task(self._return(), name="NATS connection")

    async def _return(self) -> None:
        """Connect again, however long it takes."""
        pause_s = FIRST_PAUSE_S
        while not self._closing:
            try:
                await self.open()
            except QueueError as error:
                self._complain(error)
                await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - spreads load, guards nothing
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                for tell in list(self.on_return):
                    tell()
                return

    def _complain(self, error: QueueError) -> None:
        """About what does not mend itself; once."""
        if isinstance(error, BackendMisconfigured) and str(error) != self._complaint:
            self._complaint = str(error)
            log.error("cannot connect again", error=self._complaint)

    def _noticed(self, error: Exception) -> None:
        """An error that belongs to no command."""
        found = _FORBIDDEN.search(str(error))
        if found is None:
            log.debug("NATS", error=str(error))
            return
        told = f"the NATS server's permissions forbid a {found[1].lower()} that we need, {found[2]!r}: allow it"
        matching = [call for call in self._calls.values() if call.subject == found[2]]
        for call in matching or list(self._calls.values()):
            call.fail(BackendMisconfigured(told))
        if not matching:
            log.error("forbidden", error=told)

    async def _received(self, message: Msg) -> None:
        call = self._calls.get(message.subject.rpartition(".")[2])
        if call is not None:
            call.receive(message)

    def _usable(self) -> Client:
        """The client. Raises `BackendUnavailable` while the server is away."""
        if not self._client.is_connected:
            raise BackendUnavailable("the NATS server is away; trying until it is back")
        return self._client

    async def publish(self, subject: str, data: bytes = b"", headers: Headers | None = None, reply: str = "") -> None:
        """Send, without waiting for anything."""
        client = self._usable()
        try:
            await client.publish(subject, data, reply, dict(headers) if headers else None)
        except Exception as error:
            raise translated(error) from error

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        headers: Headers | None = None,
        *,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> Msg:
        """Send, and return the reply. Raises `BackendUnavailable` if there is none in time."""
        return await self.perform(Call(subject), data, headers, timeout_s=timeout_s)

    async def collect(self, subject: str, data: bytes) -> tuple[list[Msg], Msg]:
        """Send, and return all replies, apart from them the last one, which has a status."""
        messages: list[Msg] = []
        last = await self.perform(Call(subject, messages), data)
        return messages, last

    async def perform(
        self,
        call: Call,
        data: bytes,
        headers: Headers | None = None,
        *,
        reply: str = "",
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> Msg:
        """Send, and return what ends the call; with `reply`, the caller receives the answers itself."""
        number = str(next(self._numbers))
        began_at = self.availability.now()
        self._calls[number] = call
        try:
            async with asyncio.timeout(timeout_s):
                await self.publish(call.subject, data, headers, reply or f"{self._inbox}.{number}")
                message = await call.future
        except TimeoutError:
            error = self.silent(call.subject, timeout_s)
            self.availability.failed(error, began_at=began_at)
            await self.distrust()
            raise error from None
        finally:
            del self._calls[number]
        if status_of(message) == "503":
            raise self._nobody_answers()
        self.availability.answered(began_at=began_at)
        return message

    def _nobody_answers(self) -> QueueError:
        # The driver keeps the server's greeting to itself; a server of a cluster may leave JetStream to the others.
        greeting = vars(self._client).get("_server_info", {})
        if not greeting.get("jetstream") and not greeting.get("cluster"):
            return BackendMisconfigured("the NATS server runs without JetStream: start it with -js, or enable it")
        return translated(nats.errors.NoRespondersError())

    def silent(self, what: str, timeout_s: float) -> BackendUnavailable:
        """The error of something that was never answered."""
        return BackendUnavailable(f"the NATS server did not answer {what} within {timeout_s:g} s")

    async def distrust(self) -> None:
        """The connection may lead nowhere: make it anew."""
        client = self._client
        if client.is_connected:
            await abandon(client)
            if client is self._client:
                self._lost()

    async def api(self, verb: str, body: object = None, *, timeout_s: float = COMMAND_TIMEOUT_S) -> dict[str, Any]:
        """One call of JetStream's API. Raises what its refusal means."""
        data = b"" if body is None else msgspec.json.encode(body)
        message = await self.request(f"{self.api_prefix}.{verb}", data, timeout_s=timeout_s)
        check_reply(message.data)
        return _decode_any(message.data)

    async def listen(self, subject: str, receive: Receive) -> Listening:
        """Listen to a core subject, over lost connections; while the server is away, from its return on."""
        listening = Listening(subject, receive)
        if self._client.is_connected:
            try:
                await listening.begin(self._client)
            except Exception as error:
                raise translated(error) from error
        self._listening.add(listening)
        return listening

    def forget(self, listening: Listening) -> None:
        """Nobody listens there any more."""
        self._listening.discard(listening)

    def new_inbox(self) -> str:
        """A subject for replies that nobody else has."""
        return f"_INBOX.{uuid.uuid4().hex}"

    async def close(self) -> None:
        """Give it up."""
        self._closing = True
        for call in list(self._calls.values()):
            call.fail(BackendUnavailable("the backend is closed"))
        if self._returning is not None:
            self._returning.cancel()
            await asyncio.wait([self._returning])
        await abandon(self._client)
