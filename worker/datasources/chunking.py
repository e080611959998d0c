"""Cuts a text into passages: along headings and paragraphs, of about equal size, overlapping a little. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from providers.token_estimate import estimated_tokens

_HEADING = re.compile(r"(?m)^(#{1,6})[ \t]+(\S.*)$")
_FENCE = re.compile(r"(?m)^(```|~~~).*?(?:^\1[ \t]*$|\Z)", re.DOTALL)
_PARAGRAPH = re.compile(r"\n[ \t]*\n+")
_SENTENCE = re.compile(r"(?<=[.!?\u3002\uff01\uff1f])\s+|\n")


def tokens_of(text: str) -> int:
    """About how many tokens a text has."""
    return max(1, estimated_tokens(text, ()))


def heading_text(line: str) -> str:
    """What a heading says, without the `#` that may close it. No pattern: lines may be as long as the text."""
    text = line.strip()
    bare = text.rstrip("#")
    return bare.rstrip() if bare != bare.rstrip() else text


class Chunk(NamedTuple):
    """One passage of a document."""

    content: str
    heading: str
    """The headings above it, the outermost first, joined by ` > `."""
    position: int
    """Its first character within the text."""


class _Piece(NamedTuple):
    start: int
    text: str
    tokens: int


def chunks(text: str, *, most_tokens: int, overlap_tokens: int, with_headings: bool) -> list[Chunk]:
    """The passages of a text, in order. A passage never reaches over a heading, if there are any to look for."""
    found: list[Chunk] = []
    for heading, start, section in _sections(text) if with_headings else [("", 0, text)]:
        pieces = list(_pieces(section, start, most_tokens))
        for group in _groups(pieces, most_tokens, overlap_tokens):
            content = "\n\n".join(piece.text for piece in group)
            found.append(Chunk(content, heading, group[0].start))
    return found


def _sections(text: str) -> Iterator[tuple[str, int, str]]:
    """Headings above, first character, and text of each part between two headings. A heading with nothing below it is
    a text itself."""
    headings = list(_headings(text))
    first = headings[0].start() if headings else len(text)
    if text[:first].strip():
        yield "", 0, text[:first]
    path: dict[int, str] = {}
    for match, following in zip(headings, [*headings[1:], None], strict=False):
        level = len(match[1])
        above = path = {depth: name for depth, name in path.items() if depth < level}
        path = {**path, level: heading_text(match[2])}
        end = following.start() if following else len(text)
        if text[match.end() : end].strip():
            yield _joined_path(path), match.end(), text[match.end() : end]
        elif following is None or len(following[1]) <= level:
            yield _joined_path(above), match.start(), match[0]


def _headings(text: str) -> Iterator[re.Match[str]]:
    """Lines in a block of code are none."""
    fences = _FENCE.finditer(text)
    fence = next(fences, None)
    for match in _HEADING.finditer(text):
        while fence is not None and fence.end() <= match.start():
            fence = next(fences, None)
        if fence is None or match.start() < fence.start():
            yield match


def _joined_path(path: dict[int, str]) -> str:
    return " > ".join(path[depth] for depth in sorted(path))


def _pieces(section: str, offset: int, most_tokens: int) -> Iterator[_Piece]:
    """Paragraphs; those that are too long by sentence or line, and those in turn by words."""
    for start, paragraph in _split(section, _PARAGRAPH):
        if (tokens := tokens_of(paragraph)) <= most_tokens:
            yield _Piece(offset + start, paragraph, tokens)
            continue
        for at, sentence in _joined(paragraph, most_tokens):
            for shift, part in _cut(sentence, most_tokens):
                yield _Piece(offset + start + at + shift, part, tokens_of(part))


def _split(text: str, between: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    start = 0
    for end, following in [*((match.start(), match.end()) for match in between.finditer(text)), (len(text), len(text))]:
        part = text[start:end]
        if stripped := part.strip():
            yield start + part.index(stripped[0]), stripped
        start = following


def _joined(paragraph: str, most_tokens: int) -> Iterator[tuple[int, str]]:
    """Neighbouring sentences together, as long as they are small."""
    start, end = 0, 0
    for at, part in _split(paragraph, _SENTENCE):
        if end and tokens_of(paragraph[start : at + len(part)]) > most_tokens // 2:
            yield start, paragraph[start:end]
            end = 0
        start, end = (start if end else at), at + len(part)
    if end:
        yield start, paragraph[start:end]


def _cut(text: str, most_tokens: int) -> Iterator[tuple[int, str]]:
    """At spaces where there are any."""
    start = 0
    while start < len(text):
        rest = text[start:]
        if tokens_of(rest) <= most_tokens:
            yield start, rest
            return
        # A token has at least about one and a half characters; the true share is measured.
        size = max(1, int(len(rest[: most_tokens * 4]) * most_tokens / max(tokens_of(rest[: most_tokens * 4]), 1)))
        space = rest.rfind(" ", size // 2, size)
        size = space + 1 if space > 0 else size
        yield start, rest[:size]
        start += size


def _groups(pieces: Sequence[_Piece], most_tokens: int, overlap_tokens: int) -> Iterator[list[_Piece]]:
    """Neighbouring pieces up to the limit; each group begins with the last small pieces of the one before."""
    group: list[_Piece] = []
    fresh = tokens = 0
    for piece in pieces:
        if group and tokens + piece.tokens > most_tokens:
            yield group
            group, fresh = _tail(group, min(overlap_tokens, most_tokens - piece.tokens)), 0
            tokens = sum(each.tokens for each in group)
        group.append(piece)
        tokens += piece.tokens
        fresh += 1
    if fresh:
        yield group


def _tail(group: Sequence[_Piece], most_tokens: int) -> list[_Piece]:
    kept: list[_Piece] = []
    room = most_tokens
    for piece in reversed(group):
        if piece.tokens > room:
            if not kept and room > 0 and (ending := _ending(piece, room)):
                kept.append(ending)
            break
        kept.insert(0, piece)
        room -= piece.tokens
    return kept


def _ending(piece: _Piece, most_tokens: int) -> _Piece | None:
    """The last words of a piece that is too long to be repeated whole."""
    size = len(piece.text) * most_tokens // max(piece.tokens, 1)
    start = piece.text.find(" ", len(piece.text) - size) + 1
    text = piece.text[start:]
    return _Piece(piece.start + start, text, tokens_of(text)) if start and text else None
