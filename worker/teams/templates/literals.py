"""Constants in templates: Go's numbers, strings and characters.

Source: the Go specification, "Integer literals" to "String literals". Imaginary numbers are refused.
"""

from __future__ import annotations

import re

_SIMPLE_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
}
_CODE_LENGTHS = {"x": 2, "u": 4, "U": 8}
_NUMBER_CHARS = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F_.]*(?:[pP][+-]?[0-9_]*)?|[0-9_.]+(?:[eE][+-]?[0-9_]*)?|)")
_INT = re.compile(r"[+-]?(?:0[xX](?:_?[0-9a-fA-F])+|0[bB](?:_?[01])+|0[oO]?(?:_?[0-7])+|0|[1-9](?:_?[0-9])*)")
_DIGITS = r"[0-9](?:_?[0-9])*"
_FLOAT = re.compile(rf"[+-]?(?:{_DIGITS}\.(?:{_DIGITS})?|\.{_DIGITS}|{_DIGITS})(?:[eE][+-]?{_DIGITS})?")
_HEX_DIGITS = r"[0-9a-fA-F](?:_?[0-9a-fA-F])*"
_HEX_FLOAT = re.compile(
    rf"[+-]?0[xX]_?(?:{_HEX_DIGITS}\.(?:{_HEX_DIGITS})?|\.{_HEX_DIGITS}|{_HEX_DIGITS})[pP][+-]?{_DIGITS}",
)
_BAD_OCTAL = re.compile(r"[+-]?0[0-9_]+")
_OTHER_BASES = re.compile(r"[+-]?0[bBoO][0-9_]*")
MAX_INT = 2**63 - 1
MIN_INT = -(2**63)
_MAX_NUMBER_CHARS = 400


class BadLiteral(Exception):
    """A constant that cannot be read. `offset` counts characters from its start."""

    def __init__(self, reason: str, offset: int = 0) -> None:
        super().__init__(reason)
        self.offset = offset


def read(text: str, at: int) -> tuple[str | int | float, int]:
    """The constant that begins at `at`, and the index behind it. Raises `BadLiteral`."""
    opening = text[at]
    if opening == '"':
        return _quoted(text, at, '"')
    if opening == "`":
        return _raw(text, at)
    if opening == "'":
        return _character(text, at)
    return _number(text, at)


def _raw(text: str, at: int) -> tuple[str, int]:
    end = text.find("`", at + 1)
    if end < 0:
        raise BadLiteral("the raw string is not closed: a ` is missing")
    # Go drops carriage returns from raw strings.
    return text[at + 1 : end].replace("\r", ""), end + 1


def _character(text: str, at: int) -> tuple[int, int]:
    value, end = _quoted(text, at, "'")
    if len(value) != 1:
        raise BadLiteral("a character constant holds one character; a string is written in double quotes")
    return ord(value), end


def _quoted(text: str, at: int, quote: str) -> tuple[str, int]:
    parts: list[str] = []
    place = at + 1
    while place < len(text):
        char = text[place]
        if char == quote:
            return "".join(parts), place + 1
        if char == "\n":
            break
        if char == "\\":
            piece, place = _escape(text, place, quote, at)
            parts.append(piece)
        else:
            parts.append(char)
            place += 1
    kind = "string" if quote == '"' else "character constant"
    raise BadLiteral(f"the {kind} is not closed: a {quote} is missing on its line")


def _escape(text: str, place: int, quote: str, start: int) -> tuple[str, int]:
    code = text[place + 1 : place + 2]
    if code in _SIMPLE_ESCAPES:
        return _SIMPLE_ESCAPES[code], place + 2
    if code == quote:
        return quote, place + 2
    if code in _CODE_LENGTHS:
        return _code_point(text, place + 2, _CODE_LENGTHS[code], 16, place - start)
    if code and code in "01234567":
        return _code_point(text, place + 1, 3, 8, place - start)
    raise BadLiteral(f"there is no escape \\{code}", place - start)


def _code_point(text: str, place: int, length: int, base: int, offset: int) -> tuple[str, int]:
    digits = text[place : place + length]
    allowed = "0123456789abcdefABCDEF" if base == 16 else "01234567"
    if len(digits) < length or any(digit not in allowed for digit in digits):
        raise BadLiteral(f"the escape needs {length} digits of base {base}", offset)
    value = int(digits, base)
    if value > 0x10FFFF or 0xD800 <= value <= 0xDFFF or (base == 8 and value > 255):
        raise BadLiteral("the escape names no character", offset)
    return chr(value), place + length


def _number(text: str, at: int) -> tuple[int | float, int]:
    found = _OTHER_BASES.match(text, at) or _NUMBER_CHARS.match(text, at)
    word = found.group() if found else ""
    end = at + len(word)
    while end < len(text) and (text[end].isalnum() or text[end] == "_"):
        end += 1
    word = text[at:end]
    if len(word) > _MAX_NUMBER_CHARS:
        raise BadLiteral("the number is too long")
    if word.endswith("i"):
        raise BadLiteral(f"imaginary numbers such as {word} are not supported")
    return _value(word), end


def _value(word: str) -> int | float:
    if _INT.fullmatch(word):
        number = _whole(word)
        if not MIN_INT <= number <= MAX_INT:
            raise BadLiteral(f"integer {word} is too large: it has to fit 64 bits")
        return number
    if _FLOAT.fullmatch(word) and not _BAD_OCTAL.fullmatch(word):
        real = float(word.replace("_", ""))
    elif _HEX_FLOAT.fullmatch(word):
        try:
            real = float.fromhex(word.replace("_", ""))
        except OverflowError:
            real = float("inf")
    else:
        raise BadLiteral(f"{word!r} is no number")
    if real in (float("inf"), float("-inf")):
        raise BadLiteral(f"number {word} is too large")
    # Go's untyped constants: 1e3 may stand where an integer is wanted, and still prints as the float that it is.
    return real


def _whole(word: str) -> int:
    sign = -1 if word[0] == "-" else 1
    digits = word.lstrip("+-").replace("_", "")
    if len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567":
        return sign * int(digits, 8)
    return sign * int(digits, 0)
