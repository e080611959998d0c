"""Settings that reach a provider while it runs: what it declares, and the values it was last given."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec

from providers.errors import AuthenticationFailed, InvalidRequest
from providers.interfaces import ConfigParam
from providers.messages import AgentConfig

REFERENCE = "env:"
"""A value that begins so names an environment variable of the process that uses it, and is read at each use."""

_DURATION = re.compile(r"(\d+(\.\d+)?(ms|s|m|h))+")
_BOOLS = frozenset({"true", "false"})


class Configurable:
    """A provider with live settings (`LiveConfig`): derive from it, set `params`, and read them with `value`.

    An agent's own configuration counts more than these values, and they count more than the environment.
    """

    params: ClassVar[tuple[ConfigParam, ...]] = ()
    _values: Mapping[str, str] = {}

    def describe(self) -> Sequence[ConfigParam]:
        """The settings it understands."""
        return self.params

    async def config_updated(self, values: Mapping[str, str]) -> None:
        """Use these values from the next call on; absent keys keep theirs, an empty text takes a value away.

        Raises `InvalidRequest` for a key that is not declared or a value that is not of its type; then nothing changed.
        """
        known = {param.key: param for param in self.describe()}
        for key, value in values.items():
            if key not in known:
                raise InvalidRequest(f"unknown setting {key!r}; there are: {', '.join(known) or 'none'}")
            check_value(known[key], value)
        self._values = {key: value for key, value in {**self._values, **values}.items() if value}

    def _with_model(self, config: AgentConfig) -> AgentConfig:
        """The configuration; without a model, with that of the live setting `model`."""
        default = "" if config.model else self.value("model")
        return msgspec.structs.replace(config, model=default) if default else config

    def value(self, key: str) -> str:
        """The present value of one setting; without one its default, else empty.

        Raises `AuthenticationFailed` if the value refers to an environment variable that is not set.
        """
        value = self._values.get(key, "")
        if not value:
            return next((param.default for param in self.params if param.key == key), "")
        return resolved(key, value)


def check_value(param: ConfigParam, value: str) -> None:
    """Raise `InvalidRequest` if `value` is not of the declared type. Empty texts and references always fit."""
    if not value or value.startswith(REFERENCE):
        return
    if not _fits(param.type, value):
        shown = "the value" if param.secret else repr(value)
        raise InvalidRequest(f"{param.key}: {shown} is no {param.type}")


def resolved(key: str, value: str) -> str:
    """`value`, or what the environment variable holds that it refers to. Raises `AuthenticationFailed`."""
    if not value.startswith(REFERENCE):
        return value
    variable = value.removeprefix(REFERENCE)
    found = os.environ.get(variable, "").strip()
    if not found:
        raise AuthenticationFailed(f"{key} refers to {variable}, which is not set in this process")
    return found


def _fits(kind: str, value: str) -> bool:
    match kind:
        case "int":
            return value.removeprefix("-").isdecimal()
        case "bool":
            return value in _BOOLS
        case "duration":
            return _DURATION.fullmatch(value) is not None
        case "json":
            try:
                msgspec.json.decode(value)
            except msgspec.DecodeError:
                return False
    return True
