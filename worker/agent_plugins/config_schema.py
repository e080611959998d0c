"""`config.schema.json`: what an agent of a plugin may set. JSON Schema draft-07, an object at the top."""

from __future__ import annotations

import copy
from itertools import islice
from typing import Any, NoReturn

import jsonschema_rs
import msgspec

from queue_backends.messages import JsonObject
from worker.agent_plugins.errors import BadPlugin, BadPluginConfig

SCHEMA_FILE = "config.schema.json"
_MOST_REPORTED = 5
_MOST_REASON_CHARS = 300


class ConfigSchema:
    """A plugin's schema, compiled once. Without a file anything fits."""

    def __init__(self, schema: JsonObject | None = None, where: str = SCHEMA_FILE) -> None:
        """Raises `BadPlugin` for what is no schema of an object, or refers to another document."""
        self.schema: JsonObject = {"type": "object"} if schema is None else schema
        if self.schema.get("type", "object") != "object":
            raise BadPlugin(f"{where}: type is {self.schema['type']!r}: a configuration is an object")
        try:
            self._validator = jsonschema_rs.Draft7Validator(self.schema, retriever=_refuse_remote)
        except ValueError as error:  # jsonschema_rs.ValidationError is one
            raise BadPlugin(f"{where}: it is no JSON Schema: {str(error).partition(chr(10))[0]}") from error

    @classmethod
    def read(cls, text: bytes, where: str) -> ConfigSchema:
        """The schema in a file's text. Raises `BadPlugin`."""
        try:
            schema: Any = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadPlugin(f"{where}: it is no JSON: {error}") from error
        if not isinstance(schema, dict):
            raise BadPlugin(f"{where}: it must be an object, not {type(schema).__name__}")
        return cls(schema, where)

    def errors(self, config: JsonObject) -> list[str]:
        """What is wrong with a configuration, each as `path: reason`; at most five. Empty if it fits."""
        found = self._validator.iter_errors(self.with_defaults(config))
        return [_describe(error) for error in islice(found, _MOST_REPORTED)]

    def check(self, plugin: str, config: JsonObject) -> None:
        """Raises `BadPluginConfig` with all that is wrong."""
        if errors := self.errors(config):
            raise BadPluginConfig(f"config does not fit plugin {plugin!r}: {'; '.join(errors)}")

    def with_defaults(self, config: JsonObject) -> JsonObject:
        """The configuration as the plugin sees it: what is left out has the schema's default."""
        filled: JsonObject = _filled(self.schema, config)
        return filled


def _filled(schema: Any, value: Any) -> Any:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(value, dict) or not isinstance(properties, dict):
        return value
    filled = dict(value)
    for name, part in properties.items():
        if not isinstance(part, dict):
            continue
        if name not in filled and "default" in part:
            filled[name] = copy.deepcopy(part["default"])
        if name in filled:
            filled[name] = _filled(part, filled[name])
    return filled


def _refuse_remote(uri: str) -> NoReturn:
    # Fetching what a schema names would be a request on its author's behalf.
    raise ValueError(f"reference to another document {uri!r}: put the definition under 'definitions'")


def _describe(error: jsonschema_rs.ValidationError) -> str:
    path = ".".join(str(step) for step in error.instance_path) or "(top level)"
    reason = error.message
    return f"{path}: {reason if len(reason) <= _MOST_REASON_CHARS else reason[:_MOST_REASON_CHARS] + '…'}"
