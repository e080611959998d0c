"""From what somebody wrote to a setting's value, or one line that says what is wrong with it. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, get_args

import msgspec

from worker.audit.model import parse_audit_log
from worker.errors import BadSetting
from worker.loop_policy.reading import parse_loop_policy
from worker.mid_sentence import mid_sentence
from worker.settings.setting import Setting
from worker.tools.config import parse_mcp_servers, parse_webhook_tools

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_ARK_JSON: dict[str, Callable[[str], Any]] = {
    "AGENT_AUDIT_LOG": parse_audit_log,
    "AGENT_LOOP_POLICY": parse_loop_policy,
    "AGENT_MCP_SERVERS": parse_mcp_servers,
    "AGENT_WEBHOOK_TOOLS": parse_webhook_tools,
}
_EXPECTED: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def from_text(setting: Setting, text: str) -> Any:
    """Read the value of an environment variable (never empty: that is unset).

    Raises `BadSetting`, in ark's words where ark has the variable.
    """
    name = setting.variable
    if name in _ARK_JSON:
        return _ARK_JSON[name](text)
    kind = plain_type(setting.type)
    if setting.choices:
        return check(setting, name, text)
    if kind is str:
        return text
    if kind is bool:
        return _switch(setting, text)
    if kind is int:
        return check(setting, name, _whole(setting, text))
    if kind is float:
        return check(setting, name, _number(setting, text))
    if kind == tuple[str, ...]:
        return tuple(part for part in (part.strip() for part in text.split(",")) if part)
    return _json(setting, text)


def check(setting: Setting, where: str, value: Any) -> Any:
    """Check a value that has its type already, such as one from YAML. `where` is what the error calls the setting.

    Raises `BadSetting`.
    """
    if setting.choices:
        return _choice(setting, where, value)
    expected = _EXPECTED.get(plain_type(setting.type))
    if expected and not _fits(value, plain_type(setting.type)):
        given = f" {value!r}" if isinstance(value, str | int | float) and not setting.secret else ""
        limits = f" ({setting.allowed})" if setting.minimum is not None else ""
        raise BadSetting(f"{where}: expected {expected}{limits}, got {type(value).__name__}{given}")
    converted = convert(value, setting.type, where)
    if isinstance(converted, int | float) and not isinstance(converted, bool):
        _check_bounds(setting, where, converted)
    return converted


def convert(value: Any, kind: Any, where: str) -> Any:
    """The value as `kind`. Raises `BadSetting` naming the place within it."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        inner = "" if path.startswith("[...]") and not path[5:] else path.rstrip("`")
        raise BadSetting(f"{where}{inner}: {mid_sentence(reason)}") from error


def plain_type(kind: Any) -> Any:
    """The type without its `None`."""
    if isinstance(kind, UnionType):
        return next(part for part in get_args(kind) if part is not NoneType)
    return kind


def unknown_key(where: str, key: str, known: list[str]) -> BadSetting:
    """The error for a key that nothing reads, with the nearest one that something does."""
    near = get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
    return BadSetting(f"{where}: unknown key {key!r}: {hint}")


def _check_bounds(setting: Setting, where: str, value: float) -> None:
    too_low = setting.minimum is not None and not value >= setting.minimum  # `not >=` refuses NaN too
    too_high = setting.maximum is not None and not value <= setting.maximum
    if not (too_low or too_high):
        return
    subject = where if where == setting.variable else f"{where}:"
    if setting.maximum is not None:
        low, _, high = setting.allowed.partition(" to ")
        raise BadSetting(f"{subject} must be between {low} and {high}, got {_shown(value)}")
    at_least = "non-negative" if setting.minimum == 0 else f"at least {setting.allowed.partition(' ')[0]}"
    raise BadSetting(f"{subject} must be {at_least}, got {_shown(value)}")


def _whole(setting: Setting, text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise BadSetting(f'invalid {setting.variable} "{text}": not a whole number ({setting.allowed})')
    return int(text)


def _number(setting: Setting, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadSetting(f'invalid {setting.variable} "{text}": not a number ({setting.allowed})') from None


def _switch(setting: Setting, text: str) -> bool:
    try:
        return _SWITCH[text.strip().lower()]
    except KeyError:
        raise BadSetting(f'invalid {setting.variable} "{text}": use {setting.allowed}') from None


def _json(setting: Setting, text: str) -> Any:
    try:
        return msgspec.json.decode(text, type=setting.type)
    except msgspec.DecodeError as error:
        raise BadSetting(f"invalid {setting.variable} JSON: {mid_sentence(str(error))}") from error


def _choice(setting: Setting, where: str, value: Any) -> Any:
    if isinstance(value, str) and value.lower() in setting.choices:
        return msgspec.convert(value.lower(), setting.type)
    problem = f'invalid {where} "{value}"' if where == setting.variable else f"{where}: {value!r} is not allowed"
    raise BadSetting(f"{problem}: use {setting.allowed}")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value has a scalar type; a whole number may stand for a float, a switch for neither."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


def _shown(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
