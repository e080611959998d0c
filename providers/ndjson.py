"""Newline-delimited JSON: from bytes to lines. Pure: no I/O, no waiting. Ollama streams so."""

from __future__ import annotations

import msgspec

from providers.sse import MAX_EVENT_BYTES, OversizedEventError


class NdjsonDecoder:
    """Takes the bytes as they arrive, cut anywhere, and returns the lines that are complete, without empty ones."""

    def __init__(self, max_line_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._rest = b""
        self._any = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Each line that this chunk completes. Raises `OversizedEventError`."""
        lines, end, rest = chunk.rpartition(b"\n")
        if not end:
            self._rest += chunk
        else:
            lines, self._rest, self._any = self._rest + lines, rest, True
        if len(self._rest) > self._max_line_bytes:
            raise OversizedEventError(f"a line has more than {self._max_line_bytes} bytes")
        return [line for part in lines.split(b"\n") if (line := part.strip())] if end else []

    def flush(self) -> list[bytes]:
        """The last line, if only its line feed is missing. One that was cut is left out: then the answer was, too.

        If it is all that came, it is given as it is: whoever reads it says that this is no such stream.
        """
        rest, self._rest = self._rest.strip(), b""
        if rest and not self._any:
            return [rest]
        try:
            msgspec.json.decode(rest, type=msgspec.Raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return []
        return [rest]
