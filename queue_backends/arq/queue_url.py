"""The URL: `arq+redis://host:6379/0?queue=arq:queue&poll_ms=200`."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

from queue_backends.arq.names import DEFAULT_QUEUE
from queue_backends.errors import BackendMisconfigured

PREFIX = "arq+"
DEFAULT_POLL_MS = 200
POLL_MS_ALLOWED = range(10, 60_001)


class QueueUrl(NamedTuple):
    """A URL taken apart."""

    server: str
    """What the driver takes."""
    queue: str
    poll_s: float
    """How often a waiting pull looks for jobs of engines that wake nobody."""


def taken_apart(url: str) -> QueueUrl:
    """The parts of a URL; `?stream=` means the same as `?queue=`, as commands write it that name another queue.

    Raises `BackendMisconfigured` that names what is wrong.
    """
    server, _, text = url.removeprefix(PREFIX).partition("?")
    query = parse_qsl(text, keep_blank_values=True)
    options = dict(query)
    rest = urlencode([(key, value) for key, value in query if key not in {"queue", "stream", "poll_ms"}])
    server += f"?{rest}" if rest else ""
    queue = options.get("stream") or options.get("queue") or DEFAULT_QUEUE
    return QueueUrl(server, queue, _poll_s(options.get("poll_ms", "")))


def _poll_s(text: str) -> float:
    if not text:
        return DEFAULT_POLL_MS / 1000
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) in POLL_MS_ALLOWED):
        raise BackendMisconfigured(
            f"poll_ms is {text[:40]!r}: it must be a whole number of milliseconds from {POLL_MS_ALLOWED.start} to "
            f"{POLL_MS_ALLOWED.stop - 1}"
        )
    return int(text) / 1000
