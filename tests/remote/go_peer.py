"""Peers as the Go SDK makes them, on bare HTTP/2: `application/grpc+json`, byte fields in base64, null for nothing."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

import h2.config
import h2.connection
import h2.events

USER_AGENT = "grpc-go/1.81.0"
JSON_TYPE = "application/grpc+json"
LIMIT_S = 30.0


class Refusal(Exception):
    """A call that ends with a gRPC status instead of an answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Seen(NamedTuple):
    """A call that a peer has got."""

    method: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


DROP = object()
"""In a list of answers: the connection is closed there. Bytes go out as they are, without a frame."""

Answer = dict[str, Any] | list[Any]
Handler = Callable[[dict[str, Any]], "Answer | Awaitable[Answer]"]


def b64(value: Any) -> str:
    """A value as Go writes a byte field that holds JSON."""
    return base64.b64encode(json.dumps(value, separators=(",", ":")).encode()).decode()


def unb64(text: str) -> Any:
    """The JSON in a byte field of Go's."""
    return json.loads(base64.b64decode(text, validate=True))


def frame(value: Any) -> bytes:
    """A message on the wire: not compressed, length, JSON."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return b"\x00" + struct.pack(">I", len(body)) + body


class GoServer:
    """A server that picks its codec by the content subtype, as grpc-go does: without `json` it cannot read a thing."""

    def __init__(self, service: str, handlers: dict[str, Handler]) -> None:
        self.service = service
        self.handlers = handlers
        self.seen: list[Seen] = []
        self.cancelled: list[str] = []
        self.news = asyncio.Condition()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Drop all connections and listen no more."""
        if self._server is not None:
            self._server.close()
            for task in list(self._connections):
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            self._server = None

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when something that was seen makes `condition` true."""
        async with asyncio.timeout(LIMIT_S), self.news:
            await self.news.wait_for(condition)

    def calls(self, method: str) -> list[Seen]:
        """The calls of one method."""
        return [seen for seen in self.seen if seen.method == method]

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await _ServerConnection(self, reader, writer).run()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def note(self, seen: Seen | None, cancelled: str = "") -> None:
        """Remember what happened, and tell who waits for it."""
        if seen is not None:
            self.seen.append(seen)
        if cancelled:
            self.cancelled.append(cancelled)
        async with self.news:
            self.news.notify_all()


class _ServerConnection:
    def __init__(self, server: GoServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.headers: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        self.running: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        self.h2.initiate_connection()
        self.flush()
        try:
            while data := await self.reader.read(65_536):
                for event in self.h2.receive_data(data):
                    await self.happened(event)
                self.flush()
        finally:
            for task in self.running.values():
                task.cancel()
            await asyncio.gather(*self.running.values(), return_exceptions=True)

    def flush(self) -> None:
        if data := self.h2.data_to_send():
            self.writer.write(data)

    async def happened(self, event: Any) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.headers[event.stream_id] = {_text(name): _text(value) for name, value in event.headers}
            self.bodies[event.stream_id] = b""
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            if task := self.running.pop(event.stream_id, None):
                task.cancel()
            await self.server.note(None, cancelled=self.headers[event.stream_id][":path"].rpartition("/")[2])
        if isinstance(event, h2.events.StreamEnded):
            self.running[event.stream_id] = asyncio.create_task(self.answer(event.stream_id))

    async def answer(self, stream_id: int) -> None:
        headers, raw = self.headers[stream_id], self.bodies[stream_id]
        service, _, method = headers[":path"].removeprefix("/").rpartition("/")
        body = raw[5:]
        try:
            if headers.get("content-type") != JSON_TYPE:
                raise Refusal(
                    13, "grpc: error unmarshalling request: failed to unmarshal, message is not proto.Message"
                )
            assert service == self.server.service, service
            assert raw[0] == 0
            assert struct.unpack(">I", raw[1:5])[0] == len(body)
            await self.server.note(Seen(method, headers, body))
            handler = self.server.handlers.get(method)
            if handler is None:
                raise Refusal(12, f"unknown method {method} for service {service}")
            found = handler(json.loads(body))
            answer = await found if not isinstance(found, dict | list) else found
        except Refusal as refusal:
            self.h2.send_headers(stream_id, _trailers(refusal.status, refusal.message, only=True), end_stream=True)
            self.flush()
            return
        self.h2.send_headers(stream_id, [(":status", "200"), ("content-type", JSON_TYPE)])
        for message in answer if isinstance(answer, list) else [answer]:
            if message is DROP:
                self.flush()
                self.writer.close()
                return
            self.h2.send_data(stream_id, message if isinstance(message, bytes) else frame(message))
        self.h2.send_headers(stream_id, _trailers(0, ""), end_stream=True)
        self.flush()
        self.running.pop(stream_id, None)


def _trailers(status: int, message: str, *, only: bool = False) -> list[tuple[str, str]]:
    start = [(":status", "200"), ("content-type", JSON_TYPE)] if only else []
    return [*start, ("grpc-status", str(status)), ("grpc-message", message)]


class GoClient:
    """Calls as grpc-go makes them; `plugin` is who it says it is in `x-plugin-name`."""

    def __init__(self, address: str, service: str, plugin: str = "") -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._service = service
        self._plugin = plugin

    async def call(self, method: str, request: Any) -> Any:
        """One answer. Raises `Refusal`."""
        [answer] = await self.stream(method, request)
        return answer

    async def stream(self, method: str, request: Any, *, stop_after: int = 0) -> list[Any]:
        """All answers; with `stop_after`, the call is cancelled after so many. Raises `Refusal`."""
        async with asyncio.timeout(LIMIT_S):
            reader, writer = await asyncio.open_connection(self._host, self._port)
            try:
                return await self._stream(reader, writer, method, request, stop_after)
            finally:
                writer.close()
                await writer.wait_closed()

    async def _stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, request: Any, stop_after: int
    ) -> list[Any]:
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", f"/{self._service}/{method}"),
            (":authority", self._host),
            ("content-type", JSON_TYPE),
            ("user-agent", USER_AGENT),
            ("te", "trailers"),
        ]
        if self._plugin:
            headers.append(("x-plugin-name", self._plugin))
        connection.send_headers(1, headers)
        connection.send_data(1, frame(request), end_stream=True)
        writer.write(connection.data_to_send())
        raw, status, message = b"", "", ""
        while data := await reader.read(65_536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    raw += event.data
                    connection.acknowledge_received_data(event.flow_controlled_length, 1)
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    told = {_text(name): _text(value) for name, value in event.headers}
                    status, message = told.get("grpc-status", status), told.get("grpc-message", message)
                    if isinstance(event, h2.events.ResponseReceived):
                        assert told["content-type"].startswith("application/grpc"), told
                if isinstance(event, h2.events.StreamEnded):
                    if status != "0":
                        raise Refusal(int(status or "2"), message)
                    return _unframed(raw)
            if stop_after and len(_unframed(raw)) >= stop_after:
                connection.reset_stream(1, error_code=8)
                writer.write(connection.data_to_send())
                await writer.drain()
                return _unframed(raw)
            writer.write(connection.data_to_send())
        raise ConnectionError("the server closed the connection in the middle of a call")


def _unframed(raw: bytes) -> list[Any]:
    found = []
    while len(raw) >= 5 and len(raw) >= 5 + (size := struct.unpack(">I", raw[1:5])[0]):
        found.append(json.loads(raw[5 : 5 + size]))
        raw = raw[5 + size :]
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
