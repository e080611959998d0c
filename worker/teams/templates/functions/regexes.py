"""sprig's functions for regular expressions, in RE2's syntax and linear time."""

from __future__ import annotations

from worker.teams.patterns import BadPattern, Pattern, compiled
from worker.teams.templates.functions.registry import function, text, whole
from worker.teams.templates.limits import Limits
from worker.teams.templates.values import BadValue

_CHARS_A_STEP = 16
"""A check of so many characters counts as a step of the template."""
_STEPS_A_MATCH = 8


def _pattern(limits: Limits, pattern: str, value: str) -> Pattern:
    limits.handle(len(value))
    limits.spend(1 + len(value) // _CHARS_A_STEP)
    try:
        return compiled(pattern)
    except BadPattern as error:
        raise BadValue(f"the pattern cannot be used: {error}") from None


@function("regexMatch", "mustRegexMatch", kinds=[text, text])
def _match(limits: Limits, pattern: str, value: str) -> bool:
    return _pattern(limits, pattern, value).is_match(value)


@function("regexFind", "mustRegexFind", kinds=[text, text])
def _find(limits: Limits, pattern: str, value: str) -> str:
    return next(iter(_found(limits, pattern, value, 1)), "")


@function("regexFindAll", "mustRegexFindAll", kinds=[text, text, whole])
def _find_all(limits: Limits, pattern: str, value: str, count: int) -> list[str]:
    return _found(limits, pattern, value, count)


def _found(limits: Limits, pattern: str, value: str, count: int) -> list[str]:
    found: list[str] = []
    if count == 0:
        return found
    compiled_pattern = _pattern(limits, pattern, value)
    for match in compiled_pattern.find_all(value):
        limits.spend(_STEPS_A_MATCH)
        found.append(match.groups[0] or "")
        if len(found) == count:
            break
    return found


@function("regexReplaceAll", "mustRegexReplaceAll", kinds=[text, text, text])
def _replace_all(limits: Limits, pattern: str, value: str, replacement: str) -> str:
    """sprig's order: the pattern, the text, the replacement with `${1}`."""
    return _replaced(limits, pattern, value, replacement, is_literal=False)


@function("regexReplaceAllLiteral", "mustRegexReplaceAllLiteral", kinds=[text, text, text])
def _replace_all_literal(limits: Limits, pattern: str, value: str, replacement: str) -> str:
    return _replaced(limits, pattern, value, replacement, is_literal=True)


def _replaced(limits: Limits, pattern: str, value: str, replacement: str, *, is_literal: bool) -> str:
    compiled_pattern = _pattern(limits, pattern, value)
    parts: list[str] = []
    chars = at = 0
    for match in compiled_pattern.find_all(value):
        new = replacement if is_literal else compiled_pattern.replacement(replacement, match)
        parts += (value[at : match.start], new)
        chars += match.start - at + len(new)
        limits.spend(_STEPS_A_MATCH)
        limits.handle(chars if chars > limits.max_output_chars else len(new))
        at = match.end
    limits.handle(chars + len(value) - at)
    return "".join((*parts, value[at:]))


@function("regexSplit", "mustRegexSplit", kinds=[text, text, whole])
def _split(limits: Limits, pattern: str, value: str, count: int) -> list[str]:
    """At most `count` parts; -1: all."""
    if count == 0:
        return []
    compiled_pattern = _pattern(limits, pattern, value)
    if pattern and not value:
        return [""]
    parts: list[str] = []
    start = end = 0
    for match in compiled_pattern.find_all(value):
        if len(parts) + 1 == count:
            break
        limits.spend(_STEPS_A_MATCH)
        end = match.start
        if match.end:
            parts.append(value[start:end])
        start = match.end
    return parts if end == len(value) else [*parts, value[start:]]


@function("regexQuoteMeta", kinds=[text])
def _quote_meta(limits: Limits, value: str) -> str:
    limits.handle(len(value))
    limits.look_through(len(value))
    return "".join(f"\\{char}" if char in "\\.+*?()|[]{}^$" else char for char in value)
