"""The messages of MIRASTACK's plugin protocol, as JSON.

Services: `mirastack.plugin.v1.PluginService` (in the plugin) and `.EngineService` (in the engine). A field that is
absent or null has its default; unknown fields are skipped. Byte fields are texts here, still packed:
`providers.remote.dialect`.

Source: mirastack-agents-sdk-go gen/pluginv1/types.go.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

PLUGIN_SERVICE = "mirastack.plugin.v1.PluginService"
ENGINE_SERVICE = "mirastack.plugin.v1.EngineService"

AGENT, PROVIDER, CONNECTOR = 1, 2, 3
"""Plugin types."""
READ, MODIFY, ADMIN, WRITE = 1, 2, 3, 4
"""Permissions."""
PERMISSIONS = {0: "", READ: "READ", MODIFY: "MODIFY", ADMIN: "ADMIN", WRITE: "WRITE"}
AUTONOMOUS = 3
"""The mode in which nobody is asked."""
OPERATE = 7
"""A DevOps stage."""

EMPTY = b"{}"

W = TypeVar("W", bound=Struct)


class BadMessage(ValueError):
    """What a peer sent is no message of the protocol."""


Message = Struct
"""A message: one of `plugin_messages` or `engine_messages`. Its class attribute `may_be_absent` names the fields that
are left out while they are empty; without one, there are none."""


def encode(message: Message) -> bytes:
    """The message as JSON."""
    return msgspec.json.encode(_plain(message))


def _plain(message: Message) -> dict[str, Any]:
    absent = getattr(message, "may_be_absent", frozenset[str]())
    return {
        name: _value(value)
        for name in message.__struct_fields__
        if (value := getattr(message, name)) or name not in absent
    }


def _value(value: Any) -> Any:
    if isinstance(value, Message):
        return _plain(value)
    if isinstance(value, list) and value and isinstance(value[0], Message):
        return [_plain(item) for item in value]
    return value


def decode(kind: type[W], data: bytes) -> W:
    """The message that `data` is; nothing at all is an empty one. Raises `BadMessage`."""
    try:
        try:
            return _strictly(kind, data or EMPTY)
        except msgspec.ValidationError:  # Go writes null for what it does not have
            return msgspec.convert(without_nulls(msgspec.json.decode(data)), kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadMessage(f"no {kind.__name__}: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadMessage(f"no JSON: {error}") from error
    except RecursionError as error:
        raise BadMessage("JSON that is nested too deeply") from error


def _strictly(kind: type[W], data: bytes) -> W:
    found: W = _decoder(kind).decode(data)
    return found


@functools.cache
def _decoder(kind: type[W]) -> msgspec.json.Decoder[W]:
    return msgspec.json.Decoder(kind)


def without_nulls(value: Any) -> Any:
    """A plain value without the fields that are null, at any depth."""
    if isinstance(value, Mapping):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value if item is not None] if isinstance(value, list) else value
