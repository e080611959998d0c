"""Server-sent events: from bytes to the data of each event. Pure: no I/O, no waiting.

The format is https://html.spec.whatwg.org/multipage/server-sent-events.html. Event names, ids and retry times are
dropped: every model vendor repeats the kind of an event inside its JSON.
"""

from __future__ import annotations

MAX_EVENT_BYTES = 8 * 1024 * 1024

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class OversizedEventError(ValueError):
    """An event grew beyond the limit without ending."""


class SseDecoder:
    """Takes the bytes as they arrive, cut anywhere, and returns the data of the events that are complete.

    Bytes are never turned into text here, so a cut inside a UTF-8 character does no harm.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._rest = b""
        self._after_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of each event that this chunk completes; several `data` lines are joined by a line feed.

        Raises `OversizedEventError`.
        """
        if b"\r" in chunk or self._after_cr:
            chunk = self._with_line_feeds(chunk)
        if self._rest:
            chunk = self._rest + chunk
        if self._at_start and chunk:
            chunk = self._without_mark(chunk)
        events, gap, rest = chunk.rpartition(b"\n\n")
        self._rest = rest
        if len(self._rest) > self._max_event_bytes:
            raise OversizedEventError(f"an event has more than {self._max_event_bytes} bytes")
        return _data_of_all(events) if gap else []

    def flush(self) -> list[bytes]:
        """What is left at the end: an event whose lines are whole and only the blank line after it is missing."""
        rest, self._rest = self._rest, b""
        data = _data_of(rest[:-1]) if rest.endswith(b"\n") else b""
        return [data] if data else []

    def _with_line_feeds(self, chunk: bytes) -> bytes:
        # JSON never holds a raw carriage return, so each one here ends a line. A pair may be cut in the middle.
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _without_mark(self, chunk: bytes) -> bytes:
        if len(chunk) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(chunk):
            return chunk
        self._at_start = False
        return chunk.removeprefix(_BYTE_ORDER_MARK)


def _data_of_all(events: bytes) -> list[bytes]:
    # Nearly always each event is one line, `data: {...}`: then a single split gives the data of all.
    if events.startswith(b"data: "):
        found = events[6:].split(b"\n\ndata: ")
        if events.count(b"\n") == 2 * (len(found) - 1) and b"" not in found:
            return found
    return [data for block in events.split(b"\n\n") if (data := _data_of(block))]


def _data_of(block: bytes) -> bytes:
    # The second most usual shape: one `event:` line before it.
    if block.startswith(b"event:"):
        second = block.find(b"\n") + 1
        if second and block.startswith(b"data: ", second) and block.find(b"\n", second) < 0:
            return block[second + 6 :]
    return b"\n".join(_data_lines(block))


def _data_lines(block: bytes) -> list[bytes]:
    lines = []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return lines
