"""Decoding of server-sent events, as values: bytes in, data out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.sse import OversizedEventError, SseDecoder

_STREAM = (
    b": a comment\n\n"
    b'event: message_start\ndata: {"type":"message_start"}\n\n'
    b'data: {"text":"Gr\xc3\xb6\xc3\x9fe \xf0\x9f\xa6\x91"}\n\n'
    b"id: 7\nretry: 100\ndata:no space\n\n"
    b"data: one\ndata: two\ndata\n\n"
    b"event: without data\n\n"
    b"data:\n\n"
    b"\n\n\n"
    b"data: [DONE]\n\n"
)
_EVENTS = [
    b'{"type":"message_start"}',
    '{"text":"Größe 🦑"}'.encode(),
    b"no space",
    b"one\ntwo\n",
    b"[DONE]",
]


def _decode(pieces: list[bytes]) -> list[bytes]:
    decoder = SseDecoder()
    return [data for piece in pieces for data in decoder.feed(piece)] + decoder.flush()


@given(cuts=st.lists(st.integers(0, 2 * len(_STREAM)), max_size=40), ending=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_cut_anywhere(cuts: list[int], ending: bytes) -> None:
    """The same events come out, wherever the bytes are cut and whichever way lines end."""
    stream = _STREAM.replace(b"\n", ending)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:stop] for start, stop in itertools.pairwise(edges)]
    assert _decode(pieces) == _EVENTS


def test_byte_by_byte_with_carriage_returns() -> None:
    """A pair of CR and LF in two pieces is one line end."""
    stream = _STREAM.replace(b"\n", b"\r\n")
    assert _decode([bytes([byte]) for byte in stream]) == _EVENTS


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_byte_order_mark(size: int) -> None:
    """A mark at the very beginning is no part of the first field's name."""
    stream = b"\xef\xbb\xbfdata: x\n\n"
    assert _decode([stream[start : start + size] for start in range(0, len(stream), size)]) == [b"x"]


def test_events_come_as_soon_as_they_are_complete() -> None:
    """An event is not held back until the next one begins, with either line end."""
    assert SseDecoder().feed(b"data: x\n\n") == [b"x"]
    assert SseDecoder().feed(b"data: x\r\n\r\n") == [b"x"]
    assert SseDecoder().feed(b"data: x\r\r") == [b"x"]


def test_last_event_without_blank_line() -> None:
    """A whole line at the end counts; a line that was cut does not."""
    assert _decode([b"data: a\n\ndata: b\n"]) == [b"a", b"b"]
    assert _decode([b"data: a\n\ndata: bc"]) == [b"a"]


def test_empty_data_is_no_event() -> None:
    """An event whose data is empty is not given out, in company or alone."""
    assert _decode([b"data: \n\n"]) == []
    assert _decode([b"data: a\n\ndata: \n\ndata:\n\n"]) == [b"a"]


def test_endless_event_is_an_error() -> None:
    """An event without end does not fill the memory."""
    decoder = SseDecoder(max_event_bytes=100)
    assert decoder.feed(b"data: " + b"x" * 90) == []
    with pytest.raises(OversizedEventError, match="more than 100 bytes"):
        decoder.feed(b"x" * 10)
