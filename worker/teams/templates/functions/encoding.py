"""JSON in templates, as Go's encoding/json writes it: map keys sorted, HTML characters escaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from worker.teams.templates.functions.registry import anything, function, text
from worker.teams.templates.limits import MAX_DATA_DEPTH, LimitReached, Limits
from worker.teams.templates.values import BadValue, is_nil, sorted_items

_ESCAPED = (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029"))


@function("toJson", "mustToJson", kinds=[anything])
def _to_json(limits: Limits, value: Any) -> str:
    return _escaped(limits, _encoded(limits, value))


@function("toRawJson", "mustToRawJson", kinds=[anything])
def _to_raw_json(limits: Limits, value: Any) -> str:
    return _encoded(limits, value)


@function("toPrettyJson", "mustToPrettyJson", kinds=[anything])
def _to_pretty_json(limits: Limits, value: Any) -> str:
    encoded = _encoded(limits, value)
    pretty = msgspec.json.format(encoded, indent=2)
    limits.handle(len(pretty))
    return _escaped(limits, pretty)


@function("fromJson", "mustFromJson", kinds=[text])
def _from_json(limits: Limits, value: str) -> Any:
    limits.handle(len(value))
    limits.look_through(len(value))
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise BadValue(f"the text is no JSON: {error}") from None


def _escaped(limits: Limits, encoded: str) -> str:
    for char, escape in _ESCAPED:
        limits.handle(len(encoded) + encoded.count(char) * len(escape))
        encoded = encoded.replace(char, escape)
    return encoded


def _encoded(limits: Limits, value: Any) -> str:
    plain = _plain(limits, value, 0)
    encoded = msgspec.json.encode(plain).decode()
    limits.handle(len(encoded))
    return encoded


def _plain(limits: Limits, value: Any, depth: int) -> Any:
    """What JSON has, with keys in order. A copy, counted, so that nothing deep or endless reaches the encoder."""
    limits.spend()
    if depth > MAX_DATA_DEPTH:
        raise LimitReached(f"data is nested more than {MAX_DATA_DEPTH} levels deep")
    if is_nil(value):
        return None
    if isinstance(value, Mapping):
        return {_clean(key): _plain(limits, item, depth + 1) for key, item in sorted_items(value)}
    if isinstance(value, list | tuple):
        return [_plain(limits, item, depth + 1) for item in value]
    if isinstance(value, str):
        limits.handle(len(value))
        return _clean(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        # Go writes 3.0 as 3.
        return int(value)
    return value


def _clean(value: str) -> str:
    """Without halves of characters, which no UTF-8 has."""
    return value.encode("utf-8", "replace").decode()
