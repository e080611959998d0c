"""Where one request ends and the next begins: nothing that a client sends moves that border.

The quicker parser takes a request that asks for another protocol (`Upgrade: h2c`, as Java's client does by itself) for
the last thing that is HTTP: it throws the body away, or reads it as the next request, which no proxy between has seen.
And the library takes fields after a body (trailers) for headers, which a proxy would have set itself.
"""

from __future__ import annotations

from typing import Any, Final, cast

import httptools

_MOST_BYTES_BETWEEN: Final = 256 * 1024
"""What may come in one piece after another of a body's that is none of it: trailers, and extensions of chunks."""


class PlainParser:
    """The library's parser, which is given a head that asks for another protocol once more, without that wish."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._parser = _parser_for(protocol)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def feed_data(self, data: bytes) -> None:
        """Parse. Raises `httptools.HttpParserError`."""
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as asked:
                data = self._plain_head() + data[asked.args[0] :]
                self._parser = _parser_for(self._protocol)
            else:
                return

    @property
    def is_set_aside(self) -> bool:
        """Whether what it tells of now will come again."""
        return bool(self._parser.should_upgrade())

    def _plain_head(self) -> bytes:
        version = self._parser.get_http_version().encode()
        start: bytes = self._parser.get_method() + b" " + self._protocol.url + b" HTTP/" + version + b"\r\n"
        headers: list[tuple[bytes, bytes]] = self._protocol.headers
        kept = [(name, value) for name, value in headers if name != b"upgrade"]
        return start + b"".join(name + b": " + value + b"\r\n" for name, value in kept) + b"\r\n"


def _parser_for(protocol: Any) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as the library has it: it closes by itself
    return parser


def plainly_parsed(kind: type[Any]) -> type[Any]:
    """`kind`, the library's protocol with the quicker parser, with this one."""

    class Plain(kind):  # type: ignore[misc] # the library's class is given
        """Answers a request that asks for another protocol, and stays with this one. Leaves trailers out."""

        _is_in_head = False
        _bytes_between = 0

        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            self.parser: PlainParser = PlainParser(self)

        def data_received(self, data: bytes) -> None:
            self._bytes_between += len(data)
            super().data_received(data)
            if self._bytes_between > _MOST_BYTES_BETWEEN and not self.transport.is_closing():
                self.transport.abort()  # the parser keeps a trailer that does not end

        def on_message_begin(self) -> None:
            self._is_in_head, self._bytes_between = True, 0
            super().on_message_begin()

        def on_body(self, body: bytes) -> None:
            self._bytes_between = 0
            super().on_body(body)

        def on_header(self, name: bytes, value: bytes) -> None:
            if self._is_in_head:
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._is_in_head = False
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("CONNECT leads nowhere here")
            if not self.parser.is_set_aside:
                super().on_headers_complete()

        def on_message_complete(self) -> None:
            if not self.parser.is_set_aside:
                super().on_message_complete()

    return cast("type[Any]", Plain)
