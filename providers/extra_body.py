"""What an agent adds to its requests by itself: `options.extra_body`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from queue_backends.messages import JsonObject


def add_extra(body: JsonObject, extra: Mapping[str, Any]) -> None:
    """Add the fields to a request's body. Objects are joined and lists put behind each other, so that a seed or a
    vendor's own tool takes nothing away; anything else is replaced."""
    for key, value in extra.items():
        body[key] = _joined(body.get(key), value)


def _joined(ours: Any, extra: Any) -> Any:
    if isinstance(ours, dict) and isinstance(extra, dict):
        return ours | extra
    if isinstance(ours, list) and isinstance(extra, list):
        return ours + extra
    return extra
