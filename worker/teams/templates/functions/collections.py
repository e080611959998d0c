"""Functions for lists and maps that people know from Helm and sprig. None changes what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.teams.templates.functions.registry import anything, function, items, mapping, text, whole
from worker.teams.templates.functions.strings import texts_of
from worker.teams.templates.limits import Limits
from worker.teams.templates.values import BadValue, field_of, is_deep_equal, kind_of, length_of, sorted_items

MAX_UNTIL = 10_000


@function("list", "tuple", rest=anything)
def _list(limits: Limits, *values: Any) -> list[Any]:
    return list(values)


@function("dict", rest=anything)
def _dict(limits: Limits, *values: Any) -> dict[str, Any]:
    """Keys and values in turn; a last key without a value gets ""."""
    found: dict[str, Any] = {}
    for place in range(0, len(values), 2):
        key = values[place]
        if not isinstance(key, str):
            raise BadValue(f"a key has to be a string; got {kind_of(key)}")
        found[key] = values[place + 1] if place + 1 < len(values) else ""
    return found


@function("get", kinds=[mapping, text])
def _get(limits: Limits, value: dict[str, Any], key: str) -> Any:
    """The value of a key; "" where there is none, as sprig has it."""
    return field_of(value, key) if key in value else ""


@function("hasKey", kinds=[mapping, text])
def _has_key(limits: Limits, value: dict[str, Any], key: str) -> bool:
    return key in value


@function("dig", kinds=[anything, anything], rest=anything)
def _dig(limits: Limits, *values: Any) -> Any:
    """Keys, then a default, then the map."""
    if len(values) < 3:
        raise BadValue("it wants one key or more, a default and a map")
    *keys, default, value = values
    for key in keys:
        if not isinstance(value, Mapping) or not isinstance(key, str) or key not in value:
            return default
        value = field_of(value, key)
    return value


@function("keys", kinds=[mapping], rest=mapping)
def _keys(limits: Limits, *values: dict[str, Any]) -> list[str]:
    """Sorted, where sprig's order is by chance: the same data give the same text."""
    return [key for value in values for key, _ in _sorted(limits, value)]


@function("values", kinds=[mapping])
def _values(limits: Limits, value: dict[str, Any]) -> list[Any]:
    """In the order of their keys."""
    return [item for _, item in _sorted(limits, value)]


def _sorted(limits: Limits, value: dict[str, Any]) -> list[tuple[str, Any]]:
    limits.spend(len(value))
    return sorted_items(value)


@function("pick", kinds=[mapping], rest=text)
def _pick(limits: Limits, value: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value[key] for key in keys if key in value}


@function("omit", kinds=[mapping], rest=text)
def _omit(limits: Limits, value: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: item for key, item in _sorted(limits, value) if key not in keys}


@function("merge", kinds=[mapping], rest=mapping)
def _merge(limits: Limits, *values: dict[str, Any]) -> dict[str, Any]:
    """A new map; of a key that several have, the first counts. Maps within are not merged."""
    found: dict[str, Any] = {}
    for value in reversed(values):
        limits.spend(len(value))
        found.update(value)
    return found


@function("pluck", kinds=[text], rest=mapping)
def _pluck(limits: Limits, key: str, *values: dict[str, Any]) -> list[Any]:
    return [value[key] for value in values if key in value]


@function("first", kinds=[items])
def _first(limits: Limits, values: list[Any]) -> Any:
    return values[0] if values else None


@function("last", kinds=[items])
def _last(limits: Limits, values: list[Any]) -> Any:
    return values[-1] if values else None


@function("rest", kinds=[items])
def _rest(limits: Limits, values: list[Any]) -> list[Any]:
    limits.spend(len(values))
    return values[1:]


@function("initial", kinds=[items])
def _initial(limits: Limits, values: list[Any]) -> list[Any]:
    limits.spend(len(values))
    return values[:-1]


@function("append", "push", kinds=[items, anything])
def _append(limits: Limits, values: list[Any], value: Any) -> list[Any]:
    limits.spend(len(values))
    return [*values, value]


@function("prepend", kinds=[items, anything])
def _prepend(limits: Limits, values: list[Any], value: Any) -> list[Any]:
    limits.spend(len(values))
    return [value, *values]


@function("concat", rest=items)
def _concat(limits: Limits, *lists: list[Any]) -> list[Any]:
    limits.spend(sum(len(values) for values in lists))
    return [value for values in lists for value in values]


@function("reverse", kinds=[items])
def _reverse(limits: Limits, values: list[Any]) -> list[Any]:
    limits.spend(len(values))
    return values[::-1]


@function("uniq", kinds=[items])
def _uniq(limits: Limits, values: list[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if not _holds(limits, found, value):
            found.append(value)
    return found


@function("without", kinds=[items], rest=anything)
def _without(limits: Limits, values: list[Any], *unwanted: Any) -> list[Any]:
    return [value for value in values if not _holds(limits, list(unwanted), value)]


@function("compact", kinds=[items])
def _compact(limits: Limits, values: list[Any]) -> list[Any]:
    limits.spend(len(values))
    return [value for value in values if value]


@function("has", kinds=[anything, items])
def _has(limits: Limits, value: Any, values: list[Any]) -> bool:
    return _holds(limits, values, value)


def _holds(limits: Limits, values: list[Any], value: Any) -> bool:
    return any(is_deep_equal(value, other, limits) for other in values)


@function("deepEqual", kinds=[anything, anything])
def _deep_equal(limits: Limits, left: Any, right: Any) -> bool:
    return is_deep_equal(left, right, limits)


@function("sortAlpha", kinds=[anything])
def _sort_alpha(limits: Limits, values: Any) -> list[str]:
    """As text, in the order of code points."""
    found = texts_of(limits, values)
    limits.spend(len(found))
    return sorted(found)


@function("until", kinds=[whole])
def _until(limits: Limits, count: int) -> list[int]:
    if abs(count) > MAX_UNTIL:
        raise BadValue(f"a list of {abs(count)} numbers is too long: at most {MAX_UNTIL}")
    limits.spend(abs(count))
    return list(range(0, count, 1 if count >= 0 else -1))


@function("chunk", kinds=[whole, items])
def _chunk(limits: Limits, size: int, values: list[Any]) -> list[list[Any]]:
    if size < 1:
        raise BadValue(f"a size of {size} is not allowed: it has to be 1 or more")
    limits.spend(len(values))
    return [values[place : place + size] for place in range(0, len(values), size)]


@function("empty", kinds=[anything])
def _empty(limits: Limits, value: Any) -> bool:
    return not value


@function("default", kinds=[anything, anything], optional=1)
def _default(limits: Limits, default: Any, value: Any = None) -> Any:
    """The value, unless it is empty: nil, "", 0, false, or a list or map with nothing in it."""
    return value or default


@function("coalesce", rest=anything)
def _coalesce(limits: Limits, *values: Any) -> Any:
    return next((value for value in values if value), None)


@function("all", rest=anything)
def _all(limits: Limits, *values: Any) -> bool:
    return all(values)


@function("any", rest=anything)
def _any(limits: Limits, *values: Any) -> bool:
    return any(values)


@function("ternary", kinds=[anything, anything, anything])
def _ternary(limits: Limits, yes: Any, no: Any, condition: Any) -> Any:
    if not isinstance(condition, bool):
        raise BadValue(f"argument 3: expected a bool; got {kind_of(condition)} (compare it, or use `not (empty …)`)")
    return yes if condition else no


@function("fail", kinds=[text])
def _fail(limits: Limits, message: str) -> Any:
    raise BadValue(message)


@function("required", kinds=[text, anything])
def _required(limits: Limits, message: str, value: Any) -> Any:
    if value is None or value == "" or (isinstance(value, Mapping) and not length_of(dict(value))):
        raise BadValue(message)
    return value


@function("kindOf", kinds=[anything])
def _kind_of(limits: Limits, value: Any) -> str:
    kind = kind_of(value)
    return {"<nil>": "invalid", "[]interface {}": "slice"}.get(kind, "map" if kind.startswith("map") else kind)


@function("kindIs", kinds=[text, anything])
def _kind_is(limits: Limits, kind: str, value: Any) -> bool:
    return _kind_of(limits, value) == kind
