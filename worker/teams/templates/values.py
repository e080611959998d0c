"""What Go's templates know about values: kinds, truth, fields, comparison.

Values are what JSON has: `None`, `bool`, `int`, `float`, `str`, lists and dicts with text keys. Nothing else is ever
reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from worker.teams.templates.limits import MAX_DATA_DEPTH, LimitReached, Limits

NO_VALUE = "<no value>"


class Texts(dict[str, Any]):
    """A map whose missing keys are "", as those of Go's `map[string]string`. All others give `<no value>`."""


class Nothing(dict[str, Any]):
    """Data that is not there, of which fields may be asked all the same: each is nothing again. It is false, and prints
    as `<no value>`."""


class BadValue(Exception):
    """A value that does not fit what is done with it. The evaluator adds the position."""


def kind_of(value: Any) -> str:
    """Go's name of the value's type, as `%T` and messages give it."""
    if value is None or isinstance(value, Nothing):
        return "<nil>"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, str):
        return "string"
    if isinstance(value, Texts):
        return "map[string]string"
    return "map[string]interface {}" if isinstance(value, Mapping) else "[]interface {}"


def is_known(value: Any) -> bool:
    """Whether templates may touch it at all."""
    return value is None or isinstance(value, bool | int | float | str | dict | list | tuple)


def checked(value: Any) -> Any:
    """A value of the data. Raises `BadValue` for what JSON does not have."""
    if not is_known(value):
        raise BadValue(f"a value of type {type(value).__name__} cannot be used: data is what JSON has")
    return value


def is_nil(value: Any) -> bool:
    """Whether it is nil, or not there."""
    return value is None or isinstance(value, Nothing)


def is_number(value: Any) -> bool:
    """Whether it is an integer or a float; a bool is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_true(value: Any) -> bool:
    """Go's truth: not the zero of its type, and not empty."""
    return not is_nil(value) and bool(value)


def field_of(value: Any, name: str) -> Any:
    """`.name` of a value. Raises `BadValue` for what has no fields."""
    if isinstance(value, Nothing):
        return value
    if isinstance(value, Mapping):
        return checked(value.get(name, "" if isinstance(value, Texts) else None))
    if value is None:
        raise BadValue(f"nil pointer evaluating interface {{}}.{name}: there is no value that .{name} could be read of")
    raise BadValue(f"can't evaluate field {name} in type {kind_of(value)}: only maps have fields")


def is_equal(left: Any, right: Any, limits: Limits) -> bool:
    """`eq`. Numbers compare by value, be they integers or floats. Raises `BadValue` for what cannot be compared."""
    if is_nil(left) or is_nil(right):
        return is_nil(left) and is_nil(right)
    _refuse_collections(left)
    _refuse_collections(right)
    if is_number(left) and is_number(right):
        return bool(left == right)
    if kind_of(left) != kind_of(right):
        raise BadValue(f"incompatible types for comparison: {kind_of(left)} and {kind_of(right)}")
    if isinstance(left, str):
        limits.handle(len(left))
    return bool(left == right)


def _refuse_collections(value: Any) -> None:
    if isinstance(value, Mapping | list | tuple):
        raise BadValue(f"non-comparable type {kind_of(value)}: compare what is in it, or use deepEqual")


def is_less(left: Any, right: Any, limits: Limits) -> bool:
    """`lt`, of two numbers or two texts. Raises `BadValue` for others."""
    for value in (left, right):
        if is_nil(value) or isinstance(value, bool | Mapping | list | tuple):
            raise BadValue(f"{kind_of(value)} has no order: only numbers and strings do")
    if is_number(left) != is_number(right):
        raise BadValue(f"incompatible types for comparison: {kind_of(left)} and {kind_of(right)}")
    if isinstance(left, str):
        limits.handle(len(left))
        # Go compares bytes; the order of UTF-8 is that of its code points.
    return bool(left < right)


def is_deep_equal(left: Any, right: Any, limits: Limits, depth: int = 0) -> bool:
    """Equal in kind and in all that is within. Values that compare with nothing are unequal."""
    limits.spend()
    if depth > MAX_DATA_DEPTH:
        raise LimitReached(f"data is nested more than {MAX_DATA_DEPTH} levels deep")
    if is_nil(left) or is_nil(right):
        return is_nil(left) and is_nil(right)
    if isinstance(left, Mapping):
        return (
            isinstance(right, Mapping)
            and left.keys() == right.keys()
            and all(is_deep_equal(left[key], right[key], limits, depth + 1) for key in left)
        )
    if isinstance(left, list | tuple):
        return (
            isinstance(right, list | tuple)
            and len(left) == len(right)
            and all(is_deep_equal(one, other, limits, depth + 1) for one, other in zip(left, right, strict=True))
        )
    if is_number(left) and is_number(right):
        return bool(left == right)
    return kind_of(left) == kind_of(right) and bool(left == right)


def sorted_items(value: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """As Go orders a map: by key. Keys that are no text cannot come from JSON and are left out."""
    return sorted(_text_items(value), key=lambda pair: pair[0])


def _text_items(value: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, item) for key, item in value.items() if isinstance(key, str)]


def length_of(value: Any) -> int:
    """`len`: of a text in bytes, as Go counts. Raises `BadValue`."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, Mapping | list | tuple) and not isinstance(value, Nothing):
        return len(value)
    raise BadValue(f"type {kind_of(value)} has no length: only strings, lists and maps do")


def item_of(value: Any, key: Any) -> Any:
    """`index` by one key. Raises `BadValue`."""
    if isinstance(value, Nothing):
        return value
    if isinstance(value, Mapping):
        if not isinstance(key, str):
            raise BadValue(f"the map has keys of type string; it was given {kind_of(key)}")
        return field_of(value, key)
    if value is None:
        raise BadValue("there is no value to look into")
    if isinstance(value, str | list | tuple):
        source: Sequence[Any] = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        return checked(source[position_in(len(source), key)])
    raise BadValue(f"can't index item of type {kind_of(value)}")


def position_in(length: int, key: Any) -> int:
    """A valid index below `length`. Raises `BadValue`."""
    if isinstance(key, bool) or not isinstance(key, int):
        raise BadValue(f"cannot index slice/array with type {kind_of(key)}: an integer is needed")
    if not 0 <= key < length:
        raise BadValue(f"index out of range: {key} (length {length})")
    return key
