"""Checks a call's arguments against the tool's JSON Schema, before the tool sees them."""

from __future__ import annotations

from itertools import islice
from typing import Any, NoReturn

import jsonschema_rs

from queue_backends.messages import JsonObject
from worker.errors import ToolSetupFailed

_MAX_REPORTED = 5
_MAX_REASON_CHARS = 300


class ArgumentSchema:
    """A JSON Schema, compiled once. Draft 2020-12 unless its `$schema` says otherwise."""

    def __init__(self, schema: JsonObject) -> None:
        """Raises `ToolSetupFailed` if it is no JSON Schema, or refers to another document."""
        if schema.get("type", "object") != "object":
            raise ToolSetupFailed(f"its type is {schema['type']!r}: arguments are always of type 'object'")
        try:
            self._validator = jsonschema_rs.validator_for(schema, retriever=_refuse_remote)
        except ValueError as error:  # jsonschema_rs.ValidationError is one
            first_line = str(error).partition("\n")[0]
            raise ToolSetupFailed(f"it is no JSON Schema: {first_line}") from error

    def errors(self, arguments: dict[str, Any]) -> list[str]:
        """What is wrong with the arguments, each as `path: reason`; empty if they fit. At most five."""
        return [_describe(error) for error in islice(self._validator.iter_errors(arguments), _MAX_REPORTED)]


def _refuse_remote(uri: str) -> NoReturn:
    # A schema comes from whoever wrote the tool server; fetching what it names would be a request on their behalf.
    raise ValueError(f"reference to another document {uri!r}: put the definition under '$defs'")


def _describe(error: jsonschema_rs.ValidationError) -> str:
    path = ".".join(str(step) for step in error.instance_path) or "(top level)"
    reason = error.message
    if len(reason) > _MAX_REASON_CHARS:
        reason = f"{reason[:_MAX_REASON_CHARS]}…"
    return f"{path}: {reason}"
