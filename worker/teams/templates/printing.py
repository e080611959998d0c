"""How Go prints values, without a format: `%v`. Source: the package documentation of fmt, "Printing"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from worker.teams.templates.limits import MAX_DATA_DEPTH, LimitReached, Limits
from worker.teams.templates.values import is_nil, sorted_items

NIL = "<nil>"
MAX_INT_DIGITS = 400
EXPONENT_FROM = 6


def text_of(value: Any, limits: Limits) -> str:
    """As `%v`, and `print`, give it."""
    if isinstance(value, str):
        limits.handle(len(value))
        return value
    parts: list[str] = []
    _write(value, parts, limits, 0)
    text = "".join(parts)
    limits.handle(len(text))
    return text


def _write(value: Any, parts: list[str], limits: Limits, depth: int) -> None:
    limits.spend()
    if depth > MAX_DATA_DEPTH:
        raise LimitReached(f"data is nested more than {MAX_DATA_DEPTH} levels deep")
    if is_nil(value):
        parts.append(NIL)
    elif isinstance(value, Mapping):
        _write_map(value, parts, limits, depth)
    elif isinstance(value, list | tuple):
        parts.append("[")
        for position, item in enumerate(value):
            if position:
                parts.append(" ")
            _write(item, parts, limits, depth + 1)
        parts.append("]")
    else:
        text = scalar(value)
        limits.handle(len(text))
        parts.append(text)


def _write_map(value: Mapping[str, Any], parts: list[str], limits: Limits, depth: int) -> None:
    parts.append("map[")
    limits.spend(len(value))
    for position, (key, item) in enumerate(sorted_items(value)):
        limits.handle(len(key))
        parts.append(f" {key}:" if position else f"{key}:")
        _write(item, parts, limits, depth + 1)
    parts.append("]")


def scalar(value: Any) -> str:
    """A value that holds no others."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, int):
        return int_text(value)
    return value if isinstance(value, str) else f"<{type(value).__name__}>"


def int_text(value: int) -> str:
    """Decimal. Python refuses to write integers of thousands of digits; nothing here gets near."""
    if abs(value) >= 10**MAX_INT_DIGITS:
        raise LimitReached("an integer has too many digits")
    return str(value)


def float_text(value: float) -> str:
    """`%v` of a float: the shortest digits that give it again, with an exponent below 1e-04 and from 1e+06 on."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    digits, exponent = shortest(abs(value))
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    if exponent < -4 or exponent >= EXPONENT_FROM:
        return f"{sign}{with_exponent(digits, exponent)}"
    return f"{sign}{without_exponent(digits, exponent)}"


def shortest(value: float) -> tuple[str, int]:
    """Digits without trailing zeros, and the exponent of the first."""
    mantissa, _, exponent = f"{value!r}e0".partition("e")
    number = f"{value:.17e}" if value == 0 else _scientific(mantissa, exponent)
    head, _, power = number.partition("e")
    return head.replace(".", "").rstrip("0") or "0", int(power)


def _scientific(mantissa: str, exponent: str) -> str:
    whole, _, fraction = mantissa.partition(".")
    power = int(exponent.partition("e")[0])
    digits = f"{whole}{fraction}"
    stripped = digits.lstrip("0")
    first = len(digits) - len(stripped)
    return f"{stripped[0]}.{stripped[1:] or '0'}e{power + len(whole) - 1 - first}"


def with_exponent(digits: str, exponent: int) -> str:
    """`1.5e+21`"""
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{tail}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def without_exponent(digits: str, exponent: int) -> str:
    """`1500`, `0.0015`"""
    if exponent < 0:
        return f"0.{'0' * (-exponent - 1)}{digits}"
    if len(digits) <= exponent + 1:
        return digits + "0" * (exponent + 1 - len(digits))
    return f"{digits[: exponent + 1]}.{digits[exponent + 1 :]}"
