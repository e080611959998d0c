"""From a Python function's signature to the JSON Schema of its arguments, and from JSON back to its arguments."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from queue_backends.messages import JsonObject
from worker.errors import ToolCallFailed, ToolSetupFailed
from worker.tools.docstring import read_docstring
from worker.tools.interfaces import ToolContext


class Arguments:
    """The arguments of one function: all parameters but the one annotated `ToolContext`, which is injected."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        """Raises `ToolSetupFailed` for a parameter that cannot come from JSON, naming it."""
        self._name = name
        hints = _type_hints(function, name)
        self.context_parameter = next((key for key, hint in hints.items() if _is_context(hint)), "")
        fields = [
            _field(name, parameter, hints)
            for key, parameter in _parameters(function).items()
            if key != self.context_parameter
        ]
        try:
            self._struct = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
            self.schema = _schema(self._struct)
        except (TypeError, ValueError, NameError) as error:
            reason = str(error).strip().rpartition("\n")[2]  # msgspec's advice before it is for its own callers
            raise ToolSetupFailed(f"tool {name!r}: its parameters have no JSON Schema: {reason}") from error
        for key, description in read_docstring(function)[1].items():
            if key in self.schema["properties"]:
                self.schema["properties"][key].setdefault("description", description)

    def bind(self, arguments: JsonObject, context: ToolContext) -> dict[str, Any]:
        """Keyword arguments for the function; what the model left out gets Python's own default.

        Raises `ToolCallFailed` if a value does not fit the parameter's type.
        """
        try:
            values = self._convert(arguments)
        except msgspec.ValidationError as error:
            raise ToolCallFailed(f'invalid arguments for tool "{self._name}": {error}') from error
        given = {key: getattr(values, key) for key in self._struct.__struct_fields__ if key in arguments}
        return {**given, self.context_parameter: context} if self.context_parameter else given

    def _convert(self, arguments: JsonObject) -> Any:
        try:
            return msgspec.convert(arguments, self._struct)
        except msgspec.ValidationError as error:
            try:  # to JSON Schema, which has passed, 3.0 is an integer
                return msgspec.convert(arguments, self._struct, strict=False)
            except msgspec.ValidationError:
                raise error from None


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def _type_hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise ToolSetupFailed(f"tool {name!r}: a type annotation cannot be resolved: {error}") from error
    hints.pop("return", None)
    return hints


def _is_context(hint: Any) -> bool:
    return hint is ToolContext or ToolContext in typing.get_args(hint)


def _field(name: str, parameter: inspect.Parameter, hints: dict[str, Any]) -> Any:
    if parameter.kind not in {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}:
        raise ToolSetupFailed(f"tool {name!r}: parameter {str(parameter)!r} cannot be given by name")
    if parameter.name not in hints:
        raise ToolSetupFailed(f"tool {name!r}: parameter {parameter.name!r} has no type annotation: add one")
    hint = hints[parameter.name]
    if parameter.default is inspect.Parameter.empty:
        return parameter.name, hint
    return parameter.name, hint, _shown_default(parameter.default)


def _shown_default(default: Any) -> Any:
    """The default for the schema to mention; one that JSON cannot express stays Python's own business."""
    try:
        plain = msgspec.to_builtins(default)
    except (TypeError, ValueError):
        plain = None
    if default is None or isinstance(plain, str | int | float | bool):
        return default
    return msgspec.field(default_factory=lambda: default)


def _schema(struct: type[msgspec.Struct]) -> JsonObject:
    (reference,), components = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    schema: JsonObject = components.pop(reference["$ref"].rpartition("/")[2])
    schema.pop("title", None)
    if components:
        schema["$defs"] = components
    return schema
