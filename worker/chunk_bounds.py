"""How long a chunk may be: text is split without loss, everything else is shown by its beginning. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

LONGEST_CHUNK_CHARS = 16_384
"""Of a chunk's text, and of its metadata's JSON. Consumers read many streams at once, and the broker holds them all."""
MOST_VALUE_CHARS = 1_024
"""In metadata that is too long, values up to this length stay as they are."""
MOST_VALUES = 64

_encoder = msgspec.json.Encoder()


def split(text: str) -> Iterator[str]:
    """All of `text`, in pieces of a chunk's length."""
    for start in range(0, len(text), LONGEST_CHUNK_CHARS):
        yield text[start : start + LONGEST_CHUNK_CHARS]


def encodable(text: str) -> str:
    """`text`, with lone surrogates replaced: they cannot be written as UTF-8, and would fail far from here."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def shortened(content: str, metadata: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """A chunk that is one event and stays one: the beginning of what is too long, with `truncated` and, in `chars`, how
    long it was. Metadata that is no JSON becomes text."""
    metadata = _bounded(metadata)
    content = encodable(content)
    if len(content) <= LONGEST_CHUNK_CHARS:
        return content, metadata
    return content[:LONGEST_CHUNK_CHARS], {"truncated": True, "chars": len(content), **metadata}


def _bounded(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    json = _json(metadata) if metadata else ""
    if json is not None and len(json) <= LONGEST_CHUNK_CHARS:
        return metadata
    shown: dict[str, Any] = {}
    large: dict[str, str] = {}
    for key in list(metadata)[:MOST_VALUES]:
        name, text = encodable(str(key))[:MOST_VALUE_CHARS], _json(metadata[key])
        shown[name] = metadata[key]
        if text is None:
            large[name] = encodable(repr(metadata[key]))
        elif len(text) > MOST_VALUE_CHARS:
            large[name] = text
    most = max(MOST_VALUE_CHARS, LONGEST_CHUNK_CHARS // max(1, len(large)))
    shown |= {name: text[:most] for name, text in large.items()}
    longest = max(map(len, large.values()), default=0)
    if json is None and longest <= most and len(metadata) <= MOST_VALUES:  # it was no JSON, that is all
        return shown
    return {**shown, "truncated": True, "chars": longest or len(json or "")}


def json_chars(metadata: Mapping[str, Any]) -> int:
    """How much bounded metadata weighs."""
    return len(_encoder.encode(metadata)) if metadata else 0


def _json(value: object) -> str | None:
    """Its JSON, or None if it has none."""
    try:
        return _encoder.encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        return None
