"""A model server for measurements: replays a prepared answer in a vendor's streaming format, which the path chooses.

    --mode whole   all chunks at once, each its own HTTP chunk as vendors send them
    --mode paced   `--per-s` chunks a second on every connection, each with the moment it was sent as its text
    --mode hold    one chunk, and then one every ten seconds, until the client leaves

Prints `READY <port>`.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from functools import lru_cache

from tests.benchmarks.drivers.replay_formats import Format, OpenAIFormat, format_of

HEAD = "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nTransfer-Encoding: chunked\r\n\r\n"
TEXT = "Sixty characters of text, as a model says them, give or take"
GROUPS = 20
"""Paced connections are served in so many groups, one after the other within a period, so that load is even."""
HOLD_S = 10.0


def http_chunk(event: str) -> bytes:
    """One event as one chunk of a chunked HTTP body."""
    data = event.encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def head(form: Format) -> bytes:
    """What comes before the body of an answer."""
    return HEAD.format(form.content_type).encode()


@lru_cache(maxsize=8)
def whole_answer(kind: type[Format], chunks: int) -> bytes:
    """A complete response, prepared once."""
    form = kind()
    events = [*form.begin(), *[form.text(TEXT)] * chunks, *form.end(chunks)]
    return head(form) + b"".join(map(http_chunk, events)) + LAST_CHUNK


class Player:
    """Serves all paced connections from one timer each group, instead of one task each connection."""

    def __init__(self, per_s: float, chunks: int) -> None:
        self.period_s, self.chunks = 1 / per_s, chunks
        self._groups: list[dict[Connection, int]] = [{} for _ in range(GROUPS)]
        self._next = 0
        self.late_s = 0.0
        """How far the server itself has fallen behind its own clock, at most."""

    def add(self, connection: Connection) -> None:
        self._groups[self._next % GROUPS][connection] = 0
        self._next += 1

    def remove(self, connection: Connection) -> None:
        for group in self._groups:
            group.pop(connection, None)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        due, index = loop.time(), 0
        while True:
            due += self.period_s / GROUPS
            await asyncio.sleep(max(0.0, due - loop.time()))
            self.late_s = max(self.late_s, loop.time() - due)
            self._tick(self._groups[index % GROUPS])
            index += 1

    def _tick(self, group: dict[Connection, int]) -> None:
        made: dict[type[Format], bytes] = {}
        for connection, sent in list(group.items()):
            kind = type(connection.form)
            if kind not in made:
                made[kind] = http_chunk(connection.form.text(f"{time.monotonic():017.6f}|"))
            connection.write(made[kind])
            group[connection] = sent + 1
            if sent + 1 == self.chunks:
                del group[connection]
                connection.finish(self.chunks)


class Connection(asyncio.Protocol):
    """Enough HTTP/1.1 to answer POST requests on a kept connection."""

    def __init__(self, answer: Callable[[Connection], None], player: Player) -> None:
        self._answer, self._player = answer, player
        self._buffer = b""
        self.form: Format = OpenAIFormat()
        self._transport: asyncio.Transport
        self._hold: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        heads, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < _content_length(heads):
            return
        self._buffer = body[_content_length(heads) :]
        self.form = format_of(heads.split(b" ", 2)[1].decode())
        self._answer(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._player.remove(self)
        if self._hold:
            self._hold.cancel()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def begin(self) -> None:
        self.write(head(self.form) + b"".join(map(http_chunk, self.form.begin())))

    def finish(self, chunks: int) -> None:
        self.write(b"".join(map(http_chunk, self.form.end(chunks))) + LAST_CHUNK)

    def hold(self) -> None:
        """A chunk now and then, for good."""
        self.write(http_chunk(self.form.text(TEXT)))
        self._hold = asyncio.get_running_loop().call_later(HOLD_S, self.hold)


def _content_length(heads: bytes) -> int:
    for line in heads.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


async def serve(mode: str, chunks: int, per_s: float) -> None:
    """Answer until the process ends."""
    player = Player(per_s, chunks)

    def answer(connection: Connection) -> None:
        if mode == "whole":
            connection.write(whole_answer(type(connection.form), chunks))
            return
        connection.begin()
        if mode == "hold":
            connection.hold()
        else:
            player.add(connection)

    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(answer, player), "127.0.0.1", 0, backlog=2048
    )
    print(f"READY {server.sockets[0].getsockname()[1]}", flush=True)
    if mode == "paced":
        await player.run()
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["whole", "paced", "hold"], required=True)
    parser.add_argument("--chunks", type=int, default=2000)
    parser.add_argument("--per-s", type=float, default=50.0)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.mode, arguments.chunks, arguments.per_s))
