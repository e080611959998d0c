"""The functions that Go's text/template has itself. Source: its package documentation, "Functions"."""

from __future__ import annotations

from typing import Any

from worker.teams.templates import escaping, formatting
from worker.teams.templates.functions.registry import FUNCTIONS, anything, function, text
from worker.teams.templates.limits import Limits
from worker.teams.templates.printing import text_of
from worker.teams.templates.values import (
    BadValue,
    is_equal,
    is_less,
    is_nil,
    is_true,
    item_of,
    kind_of,
    length_of,
)


@function("and", "or", kinds=[anything], rest=anything)
def _decided_by_the_evaluator(limits: Limits, *values: Any) -> Any:
    return values[-1]


FUNCTIONS["and"].stops_at = False
FUNCTIONS["or"].stops_at = True


@function("not", kinds=[anything])
def _not(limits: Limits, value: Any) -> bool:
    return not is_true(value)


@function("eq", kinds=[anything, anything], rest=anything)
def _eq(limits: Limits, value: Any, *others: Any) -> bool:
    return any(is_equal(value, other, limits) for other in others)


@function("ne", kinds=[anything, anything])
def _ne(limits: Limits, left: Any, right: Any) -> bool:
    return not is_equal(left, right, limits)


@function("lt", kinds=[anything, anything])
def _lt(limits: Limits, left: Any, right: Any) -> bool:
    return is_less(left, right, limits)


@function("le", kinds=[anything, anything])
def _le(limits: Limits, left: Any, right: Any) -> bool:
    return is_less(left, right, limits) or is_equal(left, right, limits)


@function("gt", kinds=[anything, anything])
def _gt(limits: Limits, left: Any, right: Any) -> bool:
    return not _le(limits, left, right)


@function("ge", kinds=[anything, anything])
def _ge(limits: Limits, left: Any, right: Any) -> bool:
    return not is_less(left, right, limits)


@function("len", kinds=[anything])
def _len(limits: Limits, value: Any) -> int:
    limits.read(len(value) if isinstance(value, str) else 0)
    return length_of(value)


@function("index", kinds=[anything], rest=anything)
def _index(limits: Limits, value: Any, *keys: Any) -> Any:
    if value is None:
        raise BadValue("there is no value to look into")
    for key in keys:
        limits.read(len(value) if isinstance(value, str) else 0)
        value = item_of(value, key)
    return value


@function("slice", kinds=[anything], rest=anything)
def _slice(limits: Limits, value: Any, *ends: Any) -> Any:
    if len(ends) > 3 or (len(ends) == 3 and isinstance(value, str)):
        raise BadValue(f"too many slice indexes: {len(ends)}")
    if isinstance(value, str):
        limits.handle(len(value))
        raw = value.encode("utf-8", "surrogatepass")
        start, end = _range(ends, len(raw))
        return raw[start:end].decode("utf-8", "replace")
    if not isinstance(value, list | tuple):
        raise BadValue(f"can't slice item of type {kind_of(value)}: only strings and lists")
    start, end = _range(ends, len(value))
    limits.spend(end - start)
    return list(value[start:end])


def _range(ends: tuple[Any, ...], length: int) -> tuple[int, int]:
    for end in ends:
        if isinstance(end, bool) or not isinstance(end, int):
            raise BadValue(f"cannot index slice/array with type {kind_of(end)}: an integer is needed")
        if not 0 <= end <= length:
            raise BadValue(f"index out of range: {end} (length {length})")
    start, end = (*ends, 0)[0] if ends else 0, ends[1] if len(ends) > 1 else length
    if start > end:
        raise BadValue(f"invalid slice index: {start} > {end}")
    return start, end


@function("print", rest=anything)
def _print(limits: Limits, *values: Any) -> str:
    return printed(limits, values)


def printed(limits: Limits, values: tuple[Any, ...]) -> str:
    """Go's Sprint: a space between two operands where neither is a string."""
    parts: list[str] = []
    for position, value in enumerate(values):
        if position and not isinstance(value, str) and not isinstance(values[position - 1], str):
            parts.append(" ")
        parts.append(text_of(value, limits))
    return _joined(limits, parts, "")


@function("println", rest=anything)
def _println(limits: Limits, *values: Any) -> str:
    return _joined(limits, [text_of(value, limits) for value in values], " ") + "\n"


def _joined(limits: Limits, parts: list[str], separator: str) -> str:
    limits.handle(sum(len(part) + len(separator) for part in parts))
    return separator.join(parts)


@function("printf", kinds=[text], rest=anything)
def _printf(limits: Limits, pattern: str, *values: Any) -> str:
    return formatting.formatted(limits, pattern, values)


@function("html", rest=anything)
def _html(limits: Limits, *values: Any) -> str:
    return _made(limits, escaping.html(_escapable(limits, values)))


@function("js", rest=anything)
def _js(limits: Limits, *values: Any) -> str:
    return _made(limits, escaping.js(_escapable(limits, values)))


@function("urlquery", rest=anything)
def _urlquery(limits: Limits, *values: Any) -> str:
    return _made(limits, escaping.urlquery(_escapable(limits, values)))


def _escapable(limits: Limits, values: tuple[Any, ...]) -> str:
    text = printed(limits, tuple("<no value>" if is_nil(value) else value for value in values))
    limits.look_through(len(text))
    return text


def _made(limits: Limits, text: str) -> str:
    """What has become at most a few times as long as what was counted already."""
    limits.handle(len(text))
    return text


@function("call", kinds=[anything], rest=anything)
def _call(limits: Limits, value: Any, *args: Any) -> Any:
    raise BadValue("data holds no functions: there is nothing to call")
