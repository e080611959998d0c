"""The two ways in which peers write byte fields into JSON, and how to tell which one a peer speaks.

| | Go | Python (SDK 1.11.0) |
|---|---|---|
| `content-type` of a request | `application/grpc+json` | `application/grpc` |
| byte fields, such as `params_json` | base64 | the JSON text itself |
| mode field of Execute | `execution_mode` | `mode` |
| answer of GetConfig | `config`, a map | `config_json`, a JSON text |

Source: mirastack-agents-sdk-go gen/pluginv1, PyPI mirastack-agents-sdk 1.11.0.
"""

from __future__ import annotations

import base64
import binascii
import enum
from collections.abc import Mapping

import msgspec

PLUGIN_NAME_METADATA = "x-plugin-name"
"""Go peers name themselves so with each unary call; Python peers never do."""


class Dialect(enum.StrEnum):
    """What a peer speaks."""

    GO = "go"
    PYTHON = "python"

    @property
    def other(self) -> Dialect:
        """The one that this is not."""
        return Dialect.PYTHON if self is Dialect.GO else Dialect.GO


def dialect_of(metadata: Mapping[str, str], *texts: str) -> Dialect:
    """What the sender of a call speaks: what its byte fields show counts most, then who it says it is."""
    shown = next((found for text in texts if (found := dialect_of_text(text)) is not None), None)
    if shown is not None:
        return shown
    if PLUGIN_NAME_METADATA in metadata:
        return Dialect.GO
    agent = metadata.get("user-agent", "")
    is_python = agent.startswith(("grpc-python/", "grpc-python-asyncio/"))
    return Dialect.PYTHON if is_python else Dialect.GO


def dialect_of_text(text: str) -> Dialect | None:
    """What a byte field shows of its writer; None if it is empty or could be either's.

    Only raw JSON begins with a bracket, a brace or a quote: base64 has none of them.
    """
    stripped = text.lstrip()
    if not stripped:
        return None
    if stripped[0] in '{["':
        return Dialect.PYTHON
    return Dialect.GO if _from_base64(stripped) is not None else None


def packed(value: bytes, dialect: Dialect) -> str:
    """Bytes as a peer of that dialect expects them in JSON."""
    return base64.b64encode(value).decode() if dialect is Dialect.GO else value.decode(errors="replace")


def unpacked(text: str, dialect: Dialect) -> bytes:
    """The bytes of a field that need not be JSON, such as a cached value. Raises `ValueError` for broken base64."""
    if dialect is Dialect.PYTHON:
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"a byte field is no base64: {error}") from error


def unpacked_json(text: str) -> bytes:
    """The JSON of a field that holds some, whoever wrote it."""
    if dialect_of_text(text) is Dialect.GO:
        found = _from_base64(text.strip())
        return found if found is not None else text.encode()
    return text.encode()


def _from_base64(text: str) -> bytes | None:
    """What base64 text decodes to, if that is JSON: short raw texts such as `true` are base64 by accident."""
    try:
        found = base64.b64decode(text, validate=True)
        msgspec.json.decode(found)
    except (binascii.Error, ValueError):  # msgspec.DecodeError is one
        return None
    return found
