"""Escapes of Go's text/template and strconv: for HTML, JavaScript and URLs, and quoted text."""

from __future__ import annotations

from urllib.parse import quote_plus

_HTML = str.maketrans({"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"})
_JS = {
    "\\": "\\\\",
    "'": "\\'",
    '"': '\\"',
    "<": "\\u003C",
    ">": "\\u003E",
    "&": "\\u0026",
    "=": "\\u003D",
}
_QUOTED = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
}


def html(text: str) -> str:
    """For element content and quoted attributes."""
    return text.translate(_HTML)


def js(text: str) -> str:
    """For a JavaScript string."""
    return "".join(_js_char(char) for char in text)


def _js_char(char: str) -> str:
    if char in _JS:
        return _JS[char]
    if char < " ":
        return f"\\u{ord(char):04X}"
    if char.isprintable() or char < "\x7f":
        return char
    return f"\\u{ord(char):04X}"


def urlquery(text: str) -> str:
    """For a query's value: a space becomes `+`."""
    return quote_plus(text, safe="~", errors="replace")


def quoted(text: str, *, quote: str = '"', ascii_only: bool = False) -> str:
    """Go's %q of a string, or with `quote` "'" of a character."""
    inner = "".join(_quoted_char(char, quote, ascii_only) for char in text)
    return f"{quote}{inner}{quote}"


def _quoted_char(char: str, quote: str, ascii_only: bool) -> str:
    if char == quote:
        return f"\\{char}"
    if char in _QUOTED:
        return _QUOTED[char]
    code = ord(char)
    if 0xD800 <= code <= 0xDFFF:
        return "\\ufffd"
    if char.isprintable() and (code < 0x7F or not ascii_only):
        return char
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
