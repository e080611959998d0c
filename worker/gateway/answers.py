"""Responses as JSON, written by msgspec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from queue_backends.messages import encode_json

JSON = "application/json"


def json_response(
    value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = JSON
) -> Response:
    """A value as JSON: Structs, dicts, lists and what they hold."""
    return Response(encode_json(value), status_code=status, headers=dict(headers or {}), media_type=media_type)
