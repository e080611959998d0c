"""Functions for text that people know from Helm and sprig. The text comes last, so that it can be piped in."""

from __future__ import annotations

import base64
import binascii
import hashlib
import textwrap
from typing import Any

from worker.teams.templates.escaping import quoted
from worker.teams.templates.functions.registry import anything, function, items, text, whole
from worker.teams.templates.limits import Limits
from worker.teams.templates.printing import text_of
from worker.teams.templates.values import BadValue, is_nil

MAX_INDENT = 200


@function("upper", kinds=[text])
def _upper(limits: Limits, value: str) -> str:
    limits.handle(len(value))
    return value.upper()


@function("lower", kinds=[text])
def _lower(limits: Limits, value: str) -> str:
    limits.handle(len(value))
    return value.lower()


@function("title", kinds=[text])
def _title(limits: Limits, value: str) -> str:
    """The first letter of each word; the others stay."""
    limits.look_through(len(value))
    limits.handle(len(value))
    chars: list[str] = []
    before = " "
    for char in value:
        is_first = not (before.isalnum() or before in "_'")
        chars.append(char.title() if is_first else char)
        before = char
    return "".join(chars)


@function("untitle", kinds=[text])
def _untitle(limits: Limits, value: str) -> str:
    limits.look_through(len(value))
    limits.handle(len(value))
    return "".join(
        char.lower() if not before.isalnum() else char for before, char in zip(" " + value, value, strict=False)
    )


@function("trim", kinds=[text])
def _trim(limits: Limits, value: str) -> str:
    limits.handle(len(value))
    return value.strip()


@function("trimAll", "trimall", kinds=[text, text])
def _trim_all(limits: Limits, chars: str, value: str) -> str:
    limits.handle(len(value))
    return value.strip(chars) if chars else value


@function("trimPrefix", kinds=[text, text])
def _trim_prefix(limits: Limits, prefix: str, value: str) -> str:
    limits.handle(len(value))
    return value.removeprefix(prefix)


@function("trimSuffix", kinds=[text, text])
def _trim_suffix(limits: Limits, suffix: str, value: str) -> str:
    limits.handle(len(value))
    return value.removesuffix(suffix)


@function("replace", kinds=[text, text, text])
def _replace(limits: Limits, old: str, new: str, value: str) -> str:
    limits.handle(len(value))
    limits.handle(len(value) + value.count(old) * max(0, len(new) - len(old)))
    return value.replace(old, new)


@function("contains", kinds=[text, text])
def _contains(limits: Limits, part: str, value: str) -> bool:
    limits.handle(len(value))
    return part in value


@function("hasPrefix", kinds=[text, text])
def _has_prefix(limits: Limits, prefix: str, value: str) -> bool:
    limits.read(len(prefix))
    return value.startswith(prefix)


@function("hasSuffix", kinds=[text, text])
def _has_suffix(limits: Limits, suffix: str, value: str) -> bool:
    limits.read(len(suffix))
    return value.endswith(suffix)


@function("splitList", kinds=[text, text])
def _split_list(limits: Limits, separator: str, value: str) -> list[str]:
    limits.handle(len(value))
    if not separator:
        limits.spend(len(value))
        return list(value)
    limits.spend(value.count(separator))
    return value.split(separator)


@function("split", kinds=[text, text])
def _split(limits: Limits, separator: str, value: str) -> dict[str, str]:
    """sprig's: a map with the keys _0, _1, …"""
    return {f"_{position}": part for position, part in enumerate(_split_list(limits, separator, value))}


@function("splitn", kinds=[text, whole, text])
def _splitn(limits: Limits, separator: str, count: int, value: str) -> dict[str, str]:
    parts = _split_list(limits, separator, value)
    if 0 < count < len(parts):
        parts = [*parts[: count - 1], separator.join(parts[count - 1 :])]
    return {f"_{position}": part for position, part in enumerate(parts)} if count else {}


@function("join", kinds=[anything, anything])
def _join(limits: Limits, separator: Any, value: Any) -> str:
    """sprig's order, in which a list can be piped in; or that of Go's own, which router prompts of kubeswarm use."""
    if isinstance(separator, list) and isinstance(value, str):
        separator, value = value, separator
    try:
        return joined(limits, text(separator), value)
    except BadValue as error:
        raise BadValue(f"argument 1: {error}") from None


def joined(limits: Limits, separator: str, value: Any) -> str:
    """A list's items as one text."""
    parts = texts_of(limits, value)
    limits.handle(sum(len(part) + len(separator) for part in parts))
    return separator.join(parts)


def texts_of(limits: Limits, value: Any) -> list[str]:
    """A list's items as text, without those that are nil; a single value as a list of one."""
    if is_nil(value):
        return []
    values = value if isinstance(value, list | tuple) else [value]
    return [text_of(item, limits) for item in values if not is_nil(item)]


@function("quote", rest=anything)
def _quote(limits: Limits, *values: Any) -> str:
    parts = texts_of(limits, list(values))
    limits.look_through(sum(len(part) for part in parts))
    limits.handle(sum(len(part) for part in parts))
    text = " ".join(quoted(part) for part in parts)
    limits.handle(len(text))
    return text


@function("squote", rest=anything)
def _squote(limits: Limits, *values: Any) -> str:
    parts = texts_of(limits, list(values))
    limits.handle(sum(len(part) + 3 for part in parts))
    return " ".join(f"'{part}'" for part in parts)


@function("cat", rest=anything)
def _cat(limits: Limits, *values: Any) -> str:
    return joined(limits, " ", list(values))


@function("indent", kinds=[whole, text])
def _indent(limits: Limits, width: int, value: str) -> str:
    if not 0 <= width <= MAX_INDENT:
        raise BadValue(f"an indent of {width} is not allowed: 0 to {MAX_INDENT}")
    limits.handle(len(value) + (value.count("\n") + 1) * width)
    padding = " " * width
    return padding + value.replace("\n", f"\n{padding}")


@function("nindent", kinds=[whole, text])
def _nindent(limits: Limits, width: int, value: str) -> str:
    return "\n" + _indent(limits, width, value)


@function("trunc", kinds=[whole, text])
def _trunc(limits: Limits, length: int, value: str) -> str:
    """In characters, where sprig counts bytes and may cut one apart. A negative length keeps the end."""
    limits.handle(len(value))
    return value[:length] if length >= 0 else value[max(0, len(value) + length) :]


@function("abbrev", kinds=[whole, text])
def _abbrev(limits: Limits, length: int, value: str) -> str:
    limits.handle(len(value))
    return value if length < 4 or len(value) <= length else f"{value[: length - 3]}..."


@function("substr", kinds=[whole, whole, text])
def _substr(limits: Limits, start: int, end: int, value: str) -> str:
    limits.handle(len(value))
    if start < 0:
        return value[: max(end, 0)]
    return value[start:] if end < 0 or end > len(value) else value[start:end]


@function("repeat", kinds=[whole, text])
def _repeat(limits: Limits, count: int, value: str) -> str:
    if count < 0:
        raise BadValue(f"a count of {count} is not allowed: it cannot be negative")
    limits.handle(len(value) * count)
    return value * count


@function("nospace", kinds=[text])
def _nospace(limits: Limits, value: str) -> str:
    limits.look_through(len(value))
    limits.handle(len(value))
    return "".join(value.split())


@function("wrap", kinds=[whole, text])
def _wrap(limits: Limits, width: int, value: str) -> str:
    limits.look_through(len(value))
    limits.handle(len(value))
    if width < 1:
        raise BadValue(f"a width of {width} is not allowed: it has to be 1 or more")
    lines = [
        textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""] for line in value.split("\n")
    ]
    return "\n".join(line for wrapped in lines for line in wrapped)


@function("plural", kinds=[text, text, whole])
def _plural(limits: Limits, one: str, many: str, count: int) -> str:
    return one if count == 1 else many


@function("toString", kinds=[anything])
def _to_string(limits: Limits, value: Any) -> str:
    return text_of(value, limits)


@function("toStrings", kinds=[items])
def _to_strings(limits: Limits, values: list[Any]) -> list[str]:
    return texts_of(limits, values)


@function("b64enc", kinds=[text])
def _b64enc(limits: Limits, value: str) -> str:
    limits.handle(len(value) * 4 // 3)
    return base64.b64encode(value.encode("utf-8", "replace")).decode()


@function("b64dec", kinds=[text])
def _b64dec(limits: Limits, value: str) -> str:
    limits.handle(len(value))
    try:
        return base64.b64decode(value, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError) as error:
        raise BadValue(f"the text is no base64: {error}") from None


@function("sha256sum", kinds=[text])
def _sha256sum(limits: Limits, value: str) -> str:
    limits.handle(len(value))
    return hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()
