"""The first reading of a template: text into tokens, by the lexical rules of Go's text/template.

Source: the package documentation of text/template ("Text and spaces", "Actions", "Arguments") and the Go specification
of literals.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from worker.teams.errors import TemplateError
from worker.teams.templates import literals
from worker.teams.templates.limits import MAX_TOKENS
from worker.teams.templates.positions import error_at

KEYWORDS = frozenset(
    {"if", "else", "end", "range", "with", "define", "template", "block", "break", "continue"},
)
_SPACES = " \t\r\n"
_SYMBOLS = {"|": "|", "(": "(", ")": ")", ",": ","}
_AFTER_WORD = frozenset(_SPACES + ".,|:)(=")


class Kind(enum.Enum):
    """What a token is. The value is what messages call it."""

    TEXT = "text"
    LEFT = "{{"
    RIGHT = "}}"
    WORD = "a name"
    KEYWORD = "a keyword"
    FIELD = "a field"
    VARIABLE = "a variable"
    DOT = "."
    VALUE = "a constant"
    NIL = "nil"
    PIPE = "|"
    OPEN = "("
    CLOSE = ")"
    COMMA = ","
    ASSIGN = "="
    DECLARE = ":="
    END = "the end of the template"


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a template."""

    kind: Kind
    text: str
    at: int
    """Index of its first character."""
    value: str | int | float | bool | None = None
    """Of a constant."""
    is_spaced: bool = False
    """Whether white space stands before it: `.a .b` are two arguments, `.a.b` is one."""


class Lexer:
    """Cuts one template into tokens."""

    def __init__(self, text: str, name: str) -> None:
        self._text = text
        self._name = name
        self._at = 0
        self._tokens: list[Token] = []

    def tokens(self) -> list[Token]:
        """All tokens, with END as the last. Raises `TemplateError`."""
        self._read_text(trims=False)
        while self._at < len(self._text):
            trims = self._read_action()
            self._read_text(trims=trims)
            if len(self._tokens) > MAX_TOKENS:
                raise self._fail(f"the template has more than {MAX_TOKENS} parts", self._at)
        self._tokens.append(Token(Kind.END, "", len(self._text)))
        return self._tokens

    def _fail(self, reason: str, at: int) -> TemplateError:
        return error_at(self._text, at, reason, self._name)

    def _read_text(self, *, trims: bool) -> None:
        """Up to the next `{{`; `trims`: without the white space at its start."""
        start = self._at
        found = self._text.find("{{", start)
        end = len(self._text) if found < 0 else found
        text = self._text[start:end]
        if trims:
            text = text.lstrip(_SPACES)
        if found >= 0 and self._trims_before(found):
            text = text.rstrip(_SPACES)
        if text:
            self._tokens.append(Token(Kind.TEXT, text, start))
        self._at = end

    def _trims_before(self, left: int) -> bool:
        """`{{-` trims only with white space behind it: `{{-3}}` is a number."""
        text = self._text
        return text.startswith("-", left + 2) and left + 3 < len(text) and text[left + 3] in _SPACES

    def _read_action(self) -> bool:
        """From `{{` to `}}`. Answers whether white space after it is trimmed."""
        left = self._at
        self._at += 2
        if self._trims_before(left):
            self._at += 1
        inner = self._at
        while inner < len(self._text) and self._text[inner] in _SPACES:
            inner += 1
        # Without a trim marker Go takes a comment only directly after the delimiter.
        if self._text.startswith("/*", inner) and (inner == left + 2 or self._at == left + 3):
            return self._skip_comment(left, inner)
        self._tokens.append(Token(Kind.LEFT, "{{", left))
        return self._read_inside(left)

    def _skip_comment(self, left: int, start: int) -> bool:
        end = self._text.find("*/", start + 2)
        if end < 0:
            raise self._fail("the comment is not closed: it ends with `*/}}`", left)
        self._at = end + 2
        closing = self._right()
        if closing is None:
            raise self._fail("a comment fills its action: `}}` or ` -}}` has to follow `*/` directly", self._at)
        length, trims = closing
        self._at += length
        return trims

    def _right(self) -> tuple[int, bool] | None:
        """The closing delimiter here: its length and whether it trims."""
        text, at = self._text, self._at
        if text.startswith("}}", at):
            return 2, False
        if at < len(text) and text[at] in _SPACES and text.startswith("-}}", at + 1):
            return 4, True
        return None

    def _read_inside(self, left: int) -> bool:
        open_parens: list[int] = []
        is_spaced = False
        while True:
            closing = self._right()
            if closing is not None:
                if open_parens:
                    raise self._fail("the parenthesis is not closed", open_parens[-1])
                self._tokens.append(Token(Kind.RIGHT, "}}", self._at + closing[0] - 2, is_spaced=is_spaced))
                self._at += closing[0]
                return closing[1]
            if self._at >= len(self._text):
                raise self._fail("the action is not closed: `}}` is missing", left)
            char = self._text[self._at]
            if char in _SPACES:
                self._at += 1
                is_spaced = True
                continue
            token = self._token(char, is_spaced)
            if token.kind is Kind.OPEN:
                open_parens.append(token.at)
            elif token.kind is Kind.CLOSE:
                if not open_parens:
                    raise self._fail("there is no parenthesis to close", token.at)
                open_parens.pop()
            self._tokens.append(token)
            is_spaced = False

    def _token(self, char: str, is_spaced: bool) -> Token:
        at = self._at
        if char in _SYMBOLS:
            self._at += 1
            return Token(Kind(char), char, at, is_spaced=is_spaced)
        if char in ":=":
            return self._assignment(char, is_spaced)
        if char in "\"`'":
            return self._literal(is_spaced)
        if char == "." and not self._digit_at(at + 1):
            return self._dotted(is_spaced)
        if char == "$":
            self._at += 1
            name = self._word()
            self._check_end(f"${name}")
            return Token(Kind.VARIABLE, f"${name}", at, is_spaced=is_spaced)
        if char in "+-.0123456789":
            return self._literal(is_spaced)
        if _is_letter(char):
            return self._named(is_spaced)
        raise self._fail(f"{char!r} has no meaning here", at)

    def _digit_at(self, at: int) -> bool:
        return at < len(self._text) and self._text[at] in "0123456789"

    def _assignment(self, char: str, is_spaced: bool) -> Token:
        at = self._at
        if char == "=":
            self._at += 1
            return Token(Kind.ASSIGN, "=", at, is_spaced=is_spaced)
        if not self._text.startswith(":=", at):
            raise self._fail("`:` has no meaning here; a variable is declared with `:=`", at)
        self._at += 2
        return Token(Kind.DECLARE, ":=", at, is_spaced=is_spaced)

    def _literal(self, is_spaced: bool) -> Token:
        at = self._at
        try:
            value, self._at = literals.read(self._text, at)
        except literals.BadLiteral as error:
            raise self._fail(str(error), at + error.offset) from None
        return Token(Kind.VALUE, self._text[at : self._at], at, value, is_spaced)

    def _dotted(self, is_spaced: bool) -> Token:
        at = self._at
        self._at += 1
        name = self._word()
        if not name:
            return Token(Kind.DOT, ".", at, is_spaced=is_spaced)
        self._check_end(name)
        return Token(Kind.FIELD, name, at, is_spaced=is_spaced)

    def _named(self, is_spaced: bool) -> Token:
        at = self._at
        word = self._word()
        self._check_end(word)
        if word in ("true", "false"):
            return Token(Kind.VALUE, word, at, word == "true", is_spaced)
        if word == "nil":
            return Token(Kind.NIL, word, at, is_spaced=is_spaced)
        kind = Kind.KEYWORD if word in KEYWORDS else Kind.WORD
        return Token(kind, word, at, is_spaced=is_spaced)

    def _word(self) -> str:
        start = self._at
        while self._at < len(self._text) and _is_word(self._text[self._at]):
            self._at += 1
        return self._text[start : self._at]

    def _check_end(self, word: str) -> None:
        """What may stand directly behind a name."""
        at = self._at
        if at >= len(self._text) or self._text[at] in _AFTER_WORD or self._text.startswith("}}", at):
            return
        char = self._text[at]
        hint = f'; a key with a dash is read with `index`: (index .map "{word}-…")' if char == "-" else ""
        raise self._fail(f"{char!r} cannot stand directly behind {word!r}{hint}", at)


def _is_letter(char: str) -> bool:
    return char == "_" or char.isalpha()


def _is_word(char: str) -> bool:
    return char == "_" or char.isalpha() or char.isdecimal()
