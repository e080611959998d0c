"""Regular expressions in RE2's syntax, matched in linear time by RE2 itself: no pattern can hang the loop, and a file
means here what it means to a program in Go."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

import re2
from msgspec import Struct

MOST_CHARS = 4096
"""Of a pattern."""
_MOST_MEMORY = 2**20
"""Of one compiled pattern, in bytes."""
_REFERENCE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})")


class BadPattern(ValueError):
    """A text is no regular expression, or one that is too large. The message says why."""


class Match(Struct, frozen=True):
    """Where a pattern matched, and what its groups hold; None for a group that took no part."""

    start: int
    end: int
    groups: tuple[str | None, ...]
    """The whole match is the first."""


class Pattern:
    """A compiled regular expression, with Go's rules of what matches and what a replacement is. Use `compiled`."""

    def __init__(self, pattern: str) -> None:
        """Raises `BadPattern`."""
        if len(pattern) > MOST_CHARS:
            raise BadPattern(f"it has {len(pattern)} characters, at most {MOST_CHARS} are allowed")
        options = re2.Options()
        options.log_errors = False
        options.max_mem = _MOST_MEMORY
        try:
            self._regexp = re2.compile(pattern, options)
        except re2.error as error:
            raise BadPattern(_reason(error)) from None
        except UnicodeEncodeError:
            raise BadPattern("it is no valid Unicode text") from None
        self.pattern = pattern
        self._names: dict[str, int] = self._regexp.groupindex

    def is_match(self, text: str) -> bool:
        """Whether it matches anywhere."""
        return self._regexp.search(_valid(text)) is not None

    def find(self, text: str) -> Match | None:
        """The leftmost match."""
        return next(self.find_all(text), None)

    def find_all(self, text: str) -> Iterator[Match]:
        """All matches that do not overlap."""
        before = -1
        for found in self._regexp.finditer(_valid(text)):
            start, end = found.span()
            # As Go: an empty match right behind another one does not count.
            if end > start or start != before:
                yield Match(start, end, (found.group(), *found.groups()))
            before = end

    def replacement(self, template: str, match: Match) -> str:
        """`$1`, `${1}`, `$name` and `$$` in a replacement, by Go's rules. An unknown name is ""."""

        def expanded(reference: re.Match[str]) -> str:
            name = reference.group(1) or reference.group(2)
            return "$" if name is None else self._group(name, match)

        return _REFERENCE.sub(expanded, template)

    def _group(self, name: str, match: Match) -> str:
        if name.isascii() and name.isdecimal() and len(name) <= 4:
            number = int(name)
        else:
            number = self._names.get(name, len(match.groups))
        return (match.groups[number] or "") if number < len(match.groups) else ""


@functools.lru_cache(maxsize=256)
def compiled(pattern: str) -> Pattern:
    """A pattern, kept for the next time. Raises `BadPattern`."""
    return Pattern(pattern)


def _valid(text: str) -> str:
    """RE2 reads UTF-8. What cannot be written in it counts as `?`, so that places stay where they are."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _reason(error: Exception) -> str:
    said = error.args[0] if error.args else "it cannot be read"
    return f"RE2: {said.decode('utf-8', 'replace') if isinstance(said, bytes) else said}"
