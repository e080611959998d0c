"""From an agent's output schema to the part of JSON Schema that Anthropic's structured outputs take. Pure.

Source: https://docs.claude.com/en/docs/build-with-claude/structured-outputs. What the vendor cannot enforce becomes
part of the description, so that the model knows of it; the answer is checked against the whole schema all the same.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from queue_backends.messages import JsonObject

_SCALARS = (str, int, float, bool, type(None))
_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})
_KEPT = ("title", "required", "type", "$ref")
_ANNOTATIONS = frozenset({"$schema", "$id", "$comment"})

# Models from before structured outputs, which refuse them; all later ones have them.
_OLDER = re.compile(r"claude-(v?[123]\b|instant|(sonnet|opus)-4(-0|-2025\d{4})?$)")


def takes_schemas(model: str) -> bool:
    """Whether the model has structured outputs."""
    return _OLDER.match(model) is None


def native_schema(schema: JsonObject) -> JsonObject | None:
    """The schema in the vendor's subset; None if what it allows is more than that can say, such as open objects."""
    try:
        return _node(schema)
    except _InexpressibleError:
        return None


class _InexpressibleError(Exception):
    """The subset has no word for it."""


def _node(schema: Any) -> JsonObject:
    if not isinstance(schema, dict):
        raise _InexpressibleError  # `true`: anything at all
    left = {key: value for key, value in schema.items() if key not in _ANNOTATIONS}
    built: JsonObject = {key: left.pop(key) for key in _KEPT if key in left}
    if "type" in built and not (isinstance(built["type"], str) and built["type"] in _TYPES):
        raise _InexpressibleError  # a list of types, for instance
    for key in ("$defs", "definitions", "properties"):
        if key in left:
            built[key] = {name: _node(value) for name, value in left.pop(key).items()}
    for key in ("anyOf", "allOf"):
        if key in left:
            built[key] = [_node(value) for value in left.pop(key)]
    if "oneOf" in left:  # that only one of them may fit is checked later
        built.setdefault("anyOf", []).extend(_node(value) for value in left.pop("oneOf"))
    _add_values(built, left)
    if built.get("type") == "object" or "properties" in built:
        _close(built, left)
    if "items" in left:
        built["items"] = _node(left.pop("items"))
    if not built.keys() & {"type", "$ref", "anyOf", "allOf", "enum", "const"}:
        raise _InexpressibleError
    _describe(built, left)
    return built


def _add_values(built: JsonObject, left: JsonObject) -> None:
    if "enum" in left and all(isinstance(value, _SCALARS) for value in left["enum"]):
        built["enum"] = left.pop("enum")
    if "const" in left and isinstance(left["const"], _SCALARS):
        built["const"] = left.pop("const")
    if left.get("format") in _FORMATS:
        built["format"] = left.pop("format")
    if left.get("minItems") in (0, 1):
        built["minItems"] = left.pop("minItems")


def _close(built: JsonObject, left: JsonObject) -> None:
    """Objects have to be closed. An object of any properties (a mapping) would lose them all."""
    is_open = left.pop("additionalProperties", False)
    if is_open or "patternProperties" in left or not built.get("properties"):
        raise _InexpressibleError
    built["additionalProperties"] = False


def _describe(built: JsonObject, left: JsonObject) -> None:
    description = left.pop("description", "")
    limits = msgspec.json.encode(left).decode() if left else ""
    if text := "\n".join(filter(None, (description, limits))):
        built["description"] = text
