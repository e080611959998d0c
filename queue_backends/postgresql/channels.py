"""What is announced, and on which of a queue's channels.

| channel                | payload                                                  | who listens                      |
|------------------------|----------------------------------------------------------|----------------------------------|
| `<schema>.<n>.work`    | nothing: something may be ready, or due sooner           | workers that wait for a task     |
| `<schema>.<n>.control` | `cancel <id>`                                            | workers                          |
| `<schema>.<n>.done`    | ids of tasks that have ended, separated by spaces        | who waits for results            |
| `<schema>.<n>.chunks`  | JSON `[[task id, [chunk, …]], …]`; no chunks: read them  | who has subscriptions            |
| `<schema>.<n>.state`   | JSON `[key, value in base64 or null, is it all there]`   | who watches keys                 |

`<n>` is the queue's number. A process listens to what it has use for, on one connection.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

LONGEST_PAYLOAD = 7900
"""Bytes; the server takes less than 8000."""
MOST_PAYLOADS = 16
"""Of chunks that one announcement carries in full. Of more, consumers are told only that they are there."""


class Channel(enum.StrEnum):
    """What is announced."""

    WORK = "work"
    CONTROL = "control"
    DONE = "done"
    CHUNKS = "chunks"
    STATE = "state"


def channel_name(schema: str, queue_id: int, channel: Channel) -> str:
    """As LISTEN and NOTIFY have it."""
    return f"{schema}.{queue_id}.{channel}"


class News(NamedTuple):
    """A message for whoever listens to `key` on a channel. None: something may have been missed."""

    key: str
    item: object


ChunkNews = list[tuple[str, list[msgspec.Raw]]]

_chunk_news = msgspec.json.Decoder(ChunkNews).decode
_change = msgspec.json.Decoder(tuple[str, bytes | None, bool]).decode


def read(channel: Channel, payload: bytes) -> Iterable[News]:
    """What a notification tells, and whom."""
    match channel:
        case Channel.CHUNKS:
            return [News(task_id, [bytes(raw) for raw in raws] or None) for task_id, raws in _chunk_news(payload)]
        case Channel.DONE:
            return [News(task_id, True) for task_id in payload.decode().split()]
        case Channel.STATE:
            return [News("", _change(payload))]
        case _:
            return [News("", payload.decode())]


def pack_done(ids: Sequence[str]) -> list[str]:
    """As few payloads as take them all."""
    return _joined(ids, " ", "", "")


def pack_chunks(written: Sequence[tuple[str, Sequence[bytes]]]) -> list[str]:
    """Chunks in full where they are short, else the word that there are some."""
    parts = []
    for task_id, jsons in written:
        name = msgspec.json.encode(task_id)
        whole = b"[%b,[%b]]" % (name, b",".join(jsons))
        parts.append((whole if len(whole) < LONGEST_PAYLOAD - 2 else b"[%b,[]]" % name).decode())
    packed = _joined(parts, ",", "[", "]")
    if len(packed) <= MOST_PAYLOADS:
        return packed
    names = [f"[{msgspec.json.encode(task_id).decode()},[]]" for task_id in dict(written)]
    return _joined(names, ",", "[", "]")


def pack_change(key: str, value: bytes | None) -> str:
    """A changed key: with its value, if that is short. One with too long a name is announced as unknown."""
    whole = msgspec.json.encode((key, value, True))
    if len(whole) > LONGEST_PAYLOAD:
        whole = msgspec.json.encode((key, None, False))
    if len(whole) > LONGEST_PAYLOAD:
        whole = b'["",null,false]'
    return whole.decode()


def _joined(parts: Sequence[str], separator: str, head: str, tail: str) -> list[str]:
    payloads: list[str] = []
    batch: list[str] = []
    size = 0
    for part in parts:
        own = len(part.encode()) + len(separator)
        if batch and size + own > LONGEST_PAYLOAD - len(head) - len(tail):
            payloads.append(head + separator.join(batch) + tail)
            batch, size = [], 0
        batch.append(part)
        size += own
    if batch:
        payloads.append(head + separator.join(batch) + tail)
    return payloads
