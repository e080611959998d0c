"""Newline-delimited JSON, however it is cut."""

from __future__ import annotations

import pytest

from providers.ndjson import NdjsonDecoder
from providers.sse import OversizedEventError

_STREAM = '{"a":"grün"}\n\r\n{"b":[1,2]}\r\n{"c":"日本"}\n'.encode()
_LINES = ['{"a":"grün"}'.encode(), b'{"b":[1,2]}', '{"c":"日本"}'.encode()]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 13, len(_STREAM)])
def test_lines_cut_anywhere(size: int) -> None:
    """Each line comes out once and whole, without its end; empty lines do not come out."""
    decoder = NdjsonDecoder()
    pieces = [_STREAM[start : start + size] for start in range(0, len(_STREAM), size)]
    assert [line for piece in pieces for line in decoder.feed(piece)] == _LINES
    assert decoder.flush() == []


def test_last_line_without_end() -> None:
    """A whole last line counts without its line feed; one that was cut does not."""
    for rest, found in ((b'{"done":true}', [b'{"done":true}']), (b'{"done":tr', []), (b"", []), (b" \r", [])):
        decoder = NdjsonDecoder()
        assert decoder.feed(b'{"a":1}\n' + rest) == [b'{"a":1}']
        assert decoder.flush() == found


def test_no_lines_at_all() -> None:
    """What has not one line is for the reader to judge, and nothing at all is nothing."""
    for rest, found in ((b'{"error":"x"}', [b'{"error":"x"}']), (b"{broken", [b"{broken"]), (b"", [])):
        decoder = NdjsonDecoder()
        assert decoder.feed(rest) == []
        assert decoder.flush() == found


def test_endless_line() -> None:
    """A line that does not end is refused before it fills the memory."""
    decoder = NdjsonDecoder(max_line_bytes=10)
    assert decoder.feed(b"123456789") == []
    with pytest.raises(OversizedEventError, match="10 bytes"):
        decoder.feed(b"01")
