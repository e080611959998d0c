"""The words of an HTML page, with its headings as Markdown has them. Pure."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_SILENT = frozenset({"script", "style", "noscript", "template", "svg", "head", "nav", "iframe", "object"})
_BLOCKS = frozenset(
    {
        "address", "article", "aside", "blockquote", "dd", "div", "dl", "dt", "fieldset", "figure", "footer", "form",
        "header", "hr", "main", "ol", "p", "pre", "section", "table", "ul",
    }
)  # fmt: skip
_LINES = frozenset({"br", "li", "tr"})
_VOID = frozenset(
    {"br", "hr", "img", "input", "link", "meta", "wbr", "source", "area", "base", "col", "embed", "track"}
)
_SPACES = re.compile(r"[ \t\f\v\xa0]+")
_MOST_OPEN = 100
"""Silent elements within each other."""

_UNSEEN = re.compile(r"<(?:(!--)|[!?]|(script|style)\b)", re.IGNORECASE)
_END_OF = {name: re.compile(rf"</{name}\b[^>]*>", re.IGNORECASE) for name in ("script", "style")}
_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/<>]{0,50})")
_REST_OF_TAG = re.compile(r"""(?:[^>"']|"[^"]*"|'[^']*')*+>""")
_MOST_BROKEN = 20
"""Tags with a quotation mark that is never closed; from then on quotation marks mean nothing."""


def html_text(page: str) -> tuple[str, str]:
    """The page's title, and its text."""
    parser = _Words()
    parser.feed(_bare(_seen(page)))
    parser.close()
    lines = [_SPACES.sub(" ", line).strip() for line in "".join(parser.parts).split("\n")]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return _SPACES.sub(" ", "".join(parser.title).replace("\n", " ")).strip(), text


def _seen(page: str) -> str:
    """The page without comments, declarations, scripts and styles. One that is never closed reaches to the end."""
    parts: list[str] = []
    position = 0
    while (found := _UNSEEN.search(page, position)) is not None:
        parts.append(page[position : found.start()])
        position = _end_of_unseen(page, found)
    parts.append(page[position:])
    return " ".join(parts)


def _end_of_unseen(page: str, found: re.Match[str]) -> int:
    if found[2]:
        closed = _END_OF[found[2].lower()].search(page, found.end())
        return closed.end() if closed else len(page)
    mark = "-->" if found[1] else ">"
    end = page.find(mark, found.end())
    return end + len(mark) if end >= 0 else len(page)


def _bare(page: str) -> str:
    """The page with tags that have no attributes, and no other `<`. The parser begins anew at each `<` that it cannot
    make sense of, and a page may have millions of them: what is left for it is read in one go."""
    parts: list[str] = []
    position, last, broken = 0, page.rfind(">"), 0
    while (start := page.find("<", position)) >= 0:
        parts.append(page[position:start])
        tag = _TAG.match(page, start)
        if tag is None or tag.end() > last:
            parts.append("&lt;")
            position = start + 1
            continue
        rest = _REST_OF_TAG.match(page, tag.end()) if broken < _MOST_BROKEN else None
        broken += rest is None
        parts.append(f"<{tag[1]}{tag[2]}>")
        position = rest.end() if rest else page.find(">", tag.end()) + 1
    parts.append(page[position:])
    return "".join(parts)


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.title: list[str] = []
        self._silent: list[str] = []
        self._in_title = False
        self._verbatim = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title":
            self._in_title = True
        elif tag == "body":
            self._silent = []  # whatever was left open in the head
        elif tag in _SILENT:
            if len(self._silent) < _MOST_OPEN:
                self._silent.append(tag)
        elif not self._silent:
            self._begin(tag)

    def _begin(self, tag: str) -> None:
        if tag in _LINES:
            self.parts.append("\n- " if tag == "li" else "\n")
        elif len(tag) == 2 and tag[0] == "h" and tag[1] in "123456":
            self.parts.append(f"\n\n{'#' * int(tag[1])} ")
        elif tag in _BLOCKS:
            self.parts.append("\n\n")
        elif tag in ("td", "th"):
            self.parts.append(" ")
        if tag == "pre":
            self._verbatim += 1

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        elif self._silent:
            if tag in self._silent:
                while self._silent.pop() != tag:
                    pass
        elif tag in _BLOCKS or (len(tag) == 2 and tag[0] == "h" and tag[1] in "123456"):
            self.parts.append("\n\n")
            if tag == "pre":
                self._verbatim = max(self._verbatim - 1, 0)

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
        elif not self._silent:
            self.parts.append(data if self._verbatim else data.replace("\n", " "))
