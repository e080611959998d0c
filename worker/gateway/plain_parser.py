"""Requests that ask for another protocol (`Upgrade: h2c`, as some clients do by themselves) are requests like any other.

The quicker parser takes them for the last thing that is HTTP: it throws the body away, or reads it as the next request,
which lets one client's body become a request that a proxy has never seen.
"""

from __future__ import annotations

from typing import Any, cast

import httptools


class PlainParser:
    """The library's parser, which is given a head that asks for another protocol once more, without that wish."""

    def __init__(self, protocol: Any, parser: httptools.HttpRequestParser) -> None:
        self._protocol = protocol
        self._parser = parser

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def feed_data(self, data: bytes) -> None:
        """Parse. Raises `httptools.HttpParserError`."""
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as asked:
                data = self._plain_head() + data[asked.args[0] :]
                self._parser = httptools.HttpRequestParser(self._protocol)
            else:
                return

    @property
    def is_set_aside(self) -> bool:
        """Whether what it tells of now will come again."""
        return bool(self._parser.should_upgrade())

    def _plain_head(self) -> bytes:
        start = self._parser.get_method() + b" " + self._protocol.url + b" HTTP/1.1\r\n"
        kept = [(name, value) for name, value in self._protocol.headers if name != b"upgrade"]
        return start + b"".join(name + b": " + value + b"\r\n" for name, value in kept) + b"\r\n"


def without_upgrades(kind: type[Any]) -> type[Any]:
    """`kind`, the library's protocol with the quicker parser, with this one."""

    class Plain(kind):  # type: ignore[misc] # the library's class is given
        """Answers a request that asks for another protocol, and stays with this one."""

        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            self.parser: PlainParser = PlainParser(self, self.parser)

        def on_headers_complete(self) -> None:
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("CONNECT leads nowhere here")
            if not self.parser.is_set_aside:
                super().on_headers_complete()

        def on_message_complete(self) -> None:
            if not self.parser.is_set_aside:
                super().on_message_complete()

    return cast("type[Any]", Plain)
