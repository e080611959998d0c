"""The schema of an answer, in the forms in which OpenAI and compatible servers take one, and what they refuse. Pure.

Source: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from queue_backends.messages import JsonObject


class SchemaSupport(msgspec.Struct, frozen=True, kw_only=True):
    """What a server takes of schemas. All of it is tried first."""

    schemas: bool = True
    """Any schema at all, by this model."""
    strict: bool = True
    """This schema, in the vendor's strict mode, which many keywords are foreign to."""
    this_schema: bool = True
    """This schema in any way."""


_S = TypeVar("_S", bound=SchemaSupport)

_FIELDS = ("response_format", "response format", "text.format", "json_schema")
_REFUSALS = (
    "not support",
    "unsupported",
    "unavailable",
    "unknown",
    "unrecognized",
    "unexpected",
    "extra",
    "not permitted",
)


def sent_schema(schema: JsonObject | None, support: SchemaSupport) -> JsonObject | None:
    """Name, schema and strictness, as all forms have them; None if the prompt has to ask instead."""
    if schema is None or not takes_schema(schema) or not (support.schemas and support.this_schema):
        return None
    return {"name": "answer", "schema": schema, "strict": support.strict and is_strict(schema)}


def relaxed_schema(support: _S, said: str) -> _S | None:
    """What to try after an error with this text, in lower case; None if it is about something else."""
    if not any(field in said for field in _FIELDS):
        return None
    if "invalid schema" in said:
        field = "strict" if support.strict else "this_schema"
    elif any(word in said for word in _REFUSALS):
        field = "schemas"
    else:
        return None
    return msgspec.structs.replace(support, **{field: False}) if getattr(support, field) else None


def lasting_schema(support: _S) -> _S:
    """What holds for other schemas, too."""
    return msgspec.structs.replace(support, strict=True, this_schema=True)


def takes_schema(schema: JsonObject) -> bool:
    """Whether the vendor takes a schema at all: the answer has to be an object."""
    return schema.get("type") == "object"


def is_strict(schema: Any) -> bool:
    """Whether the vendor's strict mode takes this schema: every object closed, every property required."""
    if isinstance(schema, list):
        return all(map(is_strict, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(properties):
            return False
        return all(map(is_strict, properties.values()))
    return all(map(is_strict, schema.values()))
