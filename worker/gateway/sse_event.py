"""Server-sent events as they are written.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from msgspec import Struct


class SseEvent(Struct, frozen=True):
    """One event. Fields that are empty are not sent; `event` and `id` hold no line end."""

    data: str | bytes
    event: str = ""
    id: str = ""

    def encode(self) -> bytes:
        """Its bytes."""
        return encode_event(self.data, event=self.event, event_id=self.id)


def encode_event(data: str | bytes, *, event: str = "", event_id: str = "") -> bytes:
    """An event's bytes. A line end within `data` begins another `data:` line, as the format wants it."""
    raw = data.encode() if isinstance(data, str) else data
    if b"\n" in raw or b"\r" in raw:
        lines = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        raw = b"\ndata: ".join(lines)
    head = f"id: {event_id}\n" if event_id else ""
    if event:
        head += f"event: {event}\n"
    return b"%bdata: %b\n\n" % (head.encode(), raw)
