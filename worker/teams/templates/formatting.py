"""`printf`: Go's format verbs. Source: the package documentation of fmt, "Printing" and "Format errors"."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from worker.teams.templates.escaping import quoted
from worker.teams.templates.limits import MAX_DATA_DEPTH, LimitReached, Limits
from worker.teams.templates.printing import NIL, float_text, int_text, shortest, text_of
from worker.teams.templates.values import BadValue, is_nil, kind_of, sorted_items

MAX_WIDTH = 1_000
"""Of a field, and of its precision."""
_BASES = {"b": 2, "o": 8, "O": 8, "d": 10, "x": 16, "X": 16}


@dataclass(frozen=True, slots=True)
class _Spec:
    """What stands between `%` and the verb."""

    verb: str = "v"
    plus: bool = False
    minus: bool = False
    sharp: bool = False
    space: bool = False
    zero: bool = False
    width: int | None = None
    precision: int | None = None


def formatted(limits: Limits, pattern: str, values: Sequence[Any]) -> str:
    """Go's Sprintf. What does not fit shows up in the text as Go shows it; a width or precision above 1000 raises
    `BadValue`."""
    return _Formatter(limits, pattern, values).text()


class _Formatter:
    def __init__(self, limits: Limits, pattern: str, values: Sequence[Any]) -> None:
        self._limits = limits
        self._pattern = pattern
        self._values = values
        self._at = 0
        self._next = 0
        self._reordered = False
        self._is_good_index = True
        self._chars = 0
        self._parts: list[str] = []

    def text(self) -> str:
        limits, pattern = self._limits, self._pattern
        limits.handle(len(pattern))
        while self._at < len(pattern):
            percent = pattern.find("%", self._at)
            end = len(pattern) if percent < 0 else percent
            self._add(pattern[self._at : end])
            self._at = end + 1
            if percent >= 0:
                self._add(self._directive())
        if not self._reordered and self._next < len(self._values):
            self._add(self._extra())
        return "".join(self._parts)

    def _add(self, text: str) -> None:
        self._chars += len(text)
        self._limits.spend()
        self._limits.handle(self._chars if len(text) > 256 else 0)
        if self._chars > self._limits.max_output_chars:
            raise LimitReached(f"printf makes more than {self._limits.max_output_chars} characters")
        self._parts.append(text)

    def _extra(self) -> str:
        shown = (NIL if is_nil(value) else f"{kind_of(value)}={text_of(value, self._limits)}" for value in self._rest())
        return f"%!(EXTRA {', '.join(shown)})"

    def _rest(self) -> Sequence[Any]:
        return self._values[self._next :]

    def _directive(self) -> str:
        self._is_good_index = True
        spec = self._flags()
        self._index()
        spec = self._width(spec)
        spec = self._precision(spec)
        self._index()
        if self._at >= len(self._pattern):
            return "%!(NOVERB)"
        verb = self._pattern[self._at]
        self._at += 1
        if verb == "%":
            return "%"
        if not self._is_good_index:
            return f"%!{verb}(BADINDEX)"
        if self._next >= len(self._values):
            return f"%!{verb}(MISSING)"
        value = self._values[self._next]
        self._next += 1
        return _Field(self._limits, replace(spec, verb=verb)).of(value)

    def _flags(self) -> _Spec:
        found = set()
        while self._at < len(self._pattern) and self._pattern[self._at] in "#0+- ":
            found.add(self._pattern[self._at])
            self._at += 1
        return _Spec(plus="+" in found, minus="-" in found, sharp="#" in found, space=" " in found, zero="0" in found)

    def _index(self) -> None:
        """`[2]`: the argument to use."""
        if not self._pattern.startswith("[", self._at):
            return
        self._reordered = True
        end = self._pattern.find("]", self._at)
        if end < 0:
            self._is_good_index = False
            self._at += 1
            return
        digits = self._pattern[self._at + 1 : end]
        self._at = end + 1
        if not (digits.isascii() and digits.isdecimal()) or len(digits) > 6:
            self._is_good_index = False
        elif 1 <= int(digits) <= len(self._values):
            self._next = int(digits) - 1
        else:
            self._is_good_index = False

    def _number(self) -> int | None:
        start = self._at
        while self._at < len(self._pattern) and self._pattern[self._at] in "0123456789":
            self._at += 1
        digits = self._pattern[start : self._at]
        return _bounded(int(digits[:9])) if digits else None

    def _star(self) -> int | None:
        """A width or precision that is an argument; None for one that is no integer."""
        self._at += 1
        value = self._values[self._next] if self._next < len(self._values) else None
        self._next += 1
        if isinstance(value, bool) or not isinstance(value, int):
            return None
        return _bounded(value)

    def _width(self, spec: _Spec) -> _Spec:
        if not self._pattern.startswith("*", self._at):
            return replace(spec, width=self._number())
        width = self._star()
        if width is None:
            self._add("%!(BADWIDTH)")
        elif width < 0:
            return replace(spec, width=-width, minus=True, zero=False)
        return replace(spec, width=width)

    def _precision(self, spec: _Spec) -> _Spec:
        if not self._pattern.startswith(".", self._at):
            return spec
        self._at += 1
        self._index()
        if not self._pattern.startswith("*", self._at):
            return replace(spec, precision=self._number() or 0)
        precision = self._star()
        if precision is None:
            self._add("%!(BADPREC)")
        return replace(spec, precision=precision if precision is not None and precision >= 0 else None)


def _bounded(number: int) -> int:
    if abs(number) > MAX_WIDTH:
        raise BadValue(f"a width of {number} is too large: at most {MAX_WIDTH} is allowed")
    return number


class _Field:
    """One value by one specification."""

    def __init__(self, limits: Limits, spec: _Spec) -> None:
        self._limits = limits
        self._spec = spec
        self._as_go_syntax = False
        """`%#v`"""

    def of(self, value: Any) -> str:
        if self._spec.verb == "T":
            # Go pads nil, and cuts the names of all other types.
            return self._padded(NIL if is_nil(value) else self._cut(kind_of(value)), self._spec)
        if self._spec.verb == "p":
            return self._bad(value)
        if self._spec.verb == "v":
            self._as_go_syntax = self._spec.sharp
            self._spec = replace(self._spec, sharp=False, plus=False)
        return self.shown(value)

    def shown(self, value: Any, depth: int = 0) -> str:
        """A value, or one within it."""
        self._limits.spend()
        if depth > MAX_DATA_DEPTH:
            raise LimitReached(f"data is nested more than {MAX_DATA_DEPTH} levels deep")
        if is_nil(value):
            return self._nil(depth)
        if isinstance(value, Mapping):
            return self._map(value, depth)
        if isinstance(value, list | tuple):
            inner = [self.shown(item, depth + 1) for item in value]
            if self._as_go_syntax:
                return f"{kind_of(value)}{{{', '.join(inner)}}}"
            return f"[{' '.join(inner)}]"
        if isinstance(value, bool):
            return self._bool(value)
        if isinstance(value, int):
            return self._int(value)
        if isinstance(value, float):
            return self._float(value)
        return self._text(value)

    def _nil(self, depth: int) -> str:
        if depth:
            return "interface {}(nil)" if self._as_go_syntax else NIL
        return self._padded(NIL, self._spec) if self._spec.verb == "v" else self._bad(None)

    def _map(self, value: Mapping[str, Any], depth: int) -> str:
        pairs = [f"{self._text(key)}:{self.shown(item, depth + 1)}" for key, item in sorted_items(value)]
        if self._as_go_syntax:
            return f"{kind_of(value)}{{{', '.join(pairs)}}}"
        return f"map[{' '.join(pairs)}]"

    def _bad(self, value: Any) -> str:
        if is_nil(value):
            return f"%!{self._spec.verb}({NIL})"
        shown = _Field(self._limits, replace(self._spec, verb="v")).shown(value)
        return f"%!{self._spec.verb}({kind_of(value)}={shown})"

    def _padded(self, text: str, spec: _Spec) -> str:
        width = spec.width or 0
        if spec.minus:
            return text.ljust(width)
        return text.rjust(width, "0" if spec.zero else " ")

    def _bool(self, value: bool) -> str:
        if self._spec.verb not in "tv":
            return self._bad(value)
        return self._padded("true" if value else "false", self._spec)

    # Strings

    def _text(self, value: str) -> str:
        spec = self._spec
        if spec.verb in "qxX" or self._as_go_syntax:
            self._limits.look_through(len(value))
        self._limits.read(len(value))
        cut = value if spec.precision is None else value[: spec.precision]
        if self._as_go_syntax:
            return self._padded(quoted(cut), spec)
        if spec.verb in "vs":
            return self._padded(cut, spec)
        if spec.verb == "q":
            is_raw = spec.sharp and _can_be_raw(cut)
            return self._padded(f"`{cut}`" if is_raw else quoted(cut, ascii_only=spec.plus), spec)
        if spec.verb in "xX":
            return self._padded(self._hex(value), spec)
        return self._bad(value)

    def _cut(self, value: str) -> str:
        return value if self._spec.precision is None else value[: self._spec.precision]

    def _hex(self, value: str) -> str:
        spec = self._spec
        raw = value.encode("utf-8", "surrogatepass")
        if spec.precision is not None:
            raw = raw[: spec.precision]
        prefix = "0x" if spec.sharp else ""
        text = f" {prefix}".join(f"{byte:02x}" for byte in raw) if spec.space else raw.hex()
        text = f"{prefix}{text}" if raw else ""
        return text.upper() if spec.verb == "X" else text

    # Numbers

    def _int(self, value: int) -> str:
        spec = self._spec
        if spec.verb == "v":
            return self._digits(value, 10, spec)
        if spec.verb in _BASES:
            return self._digits(value, _BASES[spec.verb], spec)
        if spec.verb in "cq":
            return self._rune(value)
        if spec.verb == "U":
            return self._unicode(value)
        return self._bad(value)

    def _digits(self, value: int, base: int, spec: _Spec) -> str:
        sign = _sign(value < 0, spec)
        digits = _in_base(abs(value), base)
        if spec.precision is not None:
            digits = "" if spec.precision == 0 and value == 0 else digits.rjust(spec.precision, "0")
            if not digits:
                return " " * (spec.width or 0)
        elif spec.zero and not spec.minus and spec.width:
            digits = digits.rjust(spec.width - len(sign), "0")
        digits = _prefix(spec, base, digits) + digits
        if spec.verb == "X":
            digits = digits.upper()
        return self._padded(f"{sign}{digits}", replace(spec, zero=False))

    def _rune(self, value: int) -> str:
        is_valid = 0 <= value <= 0x10FFFF and not 0xD800 <= value <= 0xDFFF
        char = chr(value) if is_valid else "\ufffd"
        if self._spec.verb == "c":
            return self._padded(char, self._spec)
        return self._padded(quoted(char, quote="'", ascii_only=self._spec.plus), self._spec)

    def _unicode(self, value: int) -> str:
        digits = max(4, self._spec.precision or 0)
        text = f"U+{value & 0xFFFFFFFFFFFFFFFF:0{digits}X}"
        if self._spec.sharp and 0 <= value <= 0x10FFFF and chr(value).isprintable():
            text += f" '{chr(value)}'"
        return self._padded(text, replace(self._spec, zero=False))

    def _float(self, value: float) -> str:
        spec = self._spec
        if spec.verb not in "veEfFgGbxX":
            return self._bad(value)
        if spec.verb in "bxX":
            raise BadValue(f"%{spec.verb} of a float is not supported: use %v, %e, %f or %g")
        sign = _sign(math.copysign(1.0, value) < 0 and not math.isnan(value), spec)
        if not math.isfinite(value):
            return self._not_finite(value, sign)
        digits = self._float_digits(abs(value))
        if spec.zero and not spec.minus and spec.width:
            return sign + digits.rjust(spec.width - len(sign), "0")
        return self._padded(f"{sign}{digits}", replace(spec, zero=False))

    def _not_finite(self, value: float, sign: str) -> str:
        if math.isnan(value):
            return self._padded(f"{sign}NaN", replace(self._spec, zero=False))
        return self._padded(f"{sign or '+'}Inf", replace(self._spec, zero=False))

    def _float_digits(self, value: float) -> str:
        spec = self._spec
        if spec.verb in "fF":
            return f"{value:{'#' if spec.sharp else ''}.{6 if spec.precision is None else spec.precision}f}"
        if spec.verb in "eE":
            text = f"{value:{'#' if spec.sharp else ''}.{6 if spec.precision is None else spec.precision}e}"
            return text.upper() if spec.verb == "E" else text
        text = _general(value, spec)
        return text.upper() if spec.verb == "G" else text


def _general(value: float, spec: _Spec) -> str:
    """%g and %v."""
    if spec.sharp:
        if spec.precision is None and len(shortest(value)[0]) > 6:
            text = float_text(value)
            return text if "." in text else f"{text}."
        return f"{value:#.{6 if spec.precision is None else max(spec.precision, 1)}g}"
    if spec.precision is not None:
        return f"{value:.{max(spec.precision, 1)}g}"
    return float_text(value)


def _sign(is_negative: bool, spec: _Spec) -> str:
    if is_negative:
        return "-"
    if spec.plus:
        return "+"
    return " " if spec.space else ""


def _in_base(value: int, base: int) -> str:
    if base == 10:
        return int_text(value)
    return format(value, {2: "b", 8: "o", 16: "x"}[base])


def _prefix(spec: _Spec, base: int, digits: str) -> str:
    if spec.verb == "O":
        return "0o0" if spec.sharp and not digits.startswith("0") else "0o"
    if not spec.sharp or spec.verb in "vd":
        return ""
    if base == 8:
        return "" if digits.startswith("0") else "0"
    return {2: "0b", 16: "0x"}[base]


def _can_be_raw(value: str) -> bool:
    return "`" not in value and all(char == "\t" or (char.isprintable() and char != "\ufeff") for char in value)
