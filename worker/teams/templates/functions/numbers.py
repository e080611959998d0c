"""Arithmetic that people know from Helm and sprig: with integers of 64 bits, in those that end in `f` with floats."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from worker.teams.templates.functions.registry import anything, function
from worker.teams.templates.limits import Limits
from worker.teams.templates.literals import MAX_INT, MIN_INT
from worker.teams.templates.values import BadValue, is_nil, kind_of

_INT = re.compile(r"[+-]?[0-9]{1,30}")
_MAX_NUMBER_CHARS = 400


def number(value: Any) -> int | float:
    """A number of what looks like one; as sprig, 0 for a text that does not. Maps and lists are refused."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    if is_nil(value):
        return 0
    if isinstance(value, str):
        return _parsed(value.strip())
    raise BadValue(f"expected a number; got {kind_of(value)}")


def _parsed(value: str) -> int | float:
    if _INT.fullmatch(value):
        return int(value)
    try:
        found = float(value) if len(value) <= _MAX_NUMBER_CHARS and value.isascii() and "_" not in value else 0
    except ValueError:
        return 0
    return found if math.isfinite(found) else 0


def integer(value: Any) -> int:
    """As `number`, without what is behind the point."""
    found = number(value)
    if isinstance(found, float) and not math.isfinite(found):
        raise BadValue(f"{found} is no integer")
    return _fitting(int(found))


def real(value: Any) -> float:
    """As `number`, as a float."""
    found = number(value)
    try:
        return float(found)
    except OverflowError:
        raise BadValue("the number is too large") from None


def _fitting(value: int) -> int:
    if not MIN_INT <= value <= MAX_INT:
        raise BadValue("the result does not fit an integer of 64 bits")
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise BadValue("the result is no finite number")
    return value


def _sum(values: tuple[Any, ...]) -> Any:
    return sum(values)


@function("add", rest=integer)
def _add(limits: Limits, *values: int) -> int:
    return _fitting(_sum(values))


@function("add1", kinds=[integer])
def _add1(limits: Limits, value: int) -> int:
    return _fitting(value + 1)


@function("sub", kinds=[integer, integer])
def _sub(limits: Limits, left: int, right: int) -> int:
    return _fitting(left - right)


@function("mul", kinds=[integer], rest=integer)
def _mul(limits: Limits, *values: int) -> int:
    product = 1
    for value in values:
        product = _fitting(product * value)
    return product


@function("div", kinds=[integer, integer])
def _div(limits: Limits, left: int, right: int) -> int:
    """Cut towards zero, as Go's."""
    _check_divisor(right)
    quotient = abs(left) // abs(right)
    return _fitting(quotient if (left < 0) == (right < 0) else -quotient)


@function("mod", kinds=[integer, integer])
def _mod(limits: Limits, left: int, right: int) -> int:
    """With the sign of the first, as Go's."""
    _check_divisor(right)
    remainder = abs(left) % abs(right)
    return -remainder if left < 0 else remainder


def _check_divisor(value: float) -> None:
    if not value:
        raise BadValue("division by zero")


@function("max", "biggest", kinds=[integer], rest=integer)
def _max(limits: Limits, *values: int) -> int:
    return max(values)


@function("min", kinds=[integer], rest=integer)
def _min(limits: Limits, *values: int) -> int:
    return min(values)


@function("addf", rest=real)
def _addf(limits: Limits, *values: float) -> float:
    return _finite(float(_sum(values)))


@function("subf", kinds=[real], rest=real)
def _subf(limits: Limits, first: float, *values: float) -> float:
    return _finite(first - float(_sum(values)))


@function("mulf", kinds=[real], rest=real)
def _mulf(limits: Limits, *values: float) -> float:
    return _finite(math.prod(values))


@function("divf", kinds=[real], rest=real)
def _divf(limits: Limits, first: float, *values: float) -> float:
    for value in values:
        _check_divisor(value)
        first = _finite(first / value)
    return first


@function("maxf", kinds=[real], rest=real)
def _maxf(limits: Limits, *values: float) -> float:
    return max(values)


@function("minf", kinds=[real], rest=real)
def _minf(limits: Limits, *values: float) -> float:
    return min(values)


@function("floor", kinds=[real])
def _floor(limits: Limits, value: float) -> float:
    return _rounded(math.floor, value)


@function("ceil", kinds=[real])
def _ceil(limits: Limits, value: float) -> float:
    return _rounded(math.ceil, value)


def _rounded(way: Callable[[float], int], value: float) -> float:
    return float(way(_finite(value)))


@function("round", kinds=[real, integer], optional=1)
def _round(limits: Limits, value: float, places: int = 0) -> float:
    """Half away from zero, as sprig."""
    if not -15 <= places <= 15:
        raise BadValue(f"{places} places are not allowed: -15 to 15")
    scale = 10.0**places
    scaled = _finite(abs(_finite(value)) * scale)
    return math.copysign(math.floor(scaled + 0.5) / scale, value)


@function("int", "int64", "atoi", kinds=[anything])
def _int(limits: Limits, value: Any) -> int:
    return integer(value)


@function("float64", kinds=[anything])
def _float64(limits: Limits, value: Any) -> float:
    return real(value)


@function("abs", kinds=[anything])
def _abs(limits: Limits, value: Any) -> int | float:
    return abs(number(value))
