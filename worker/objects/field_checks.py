"""What fields that several kinds of declared objects have may be."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from worker.objects.errors import BadObject

MOST_NAME_CHARS = 200
MOST_DESCRIPTION_CHARS = 4000
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")


def check_words(kind: str, name: str, description: str) -> None:
    """Raise `BadObject` for a name or a description that is too long, or a name that cannot be shown."""
    if len(name) > MOST_NAME_CHARS or not name.isprintable():
        raise BadObject(
            f"{kind}: name is {name[:MOST_NAME_CHARS]!r}: use at most {MOST_NAME_CHARS} printable characters"
        )
    if len(description) > MOST_DESCRIPTION_CHARS:
        raise BadObject(
            f"{kind}: description has {len(description)} characters, at most {MOST_DESCRIPTION_CHARS} are allowed"
        )


def check_short(where: str, text: str) -> None:
    """Raise `BadObject` for what is no short text of printable characters."""
    if len(text) > MOST_NAME_CHARS or not text.isprintable() or text != text.strip():
        raise BadObject(f"{where} is {text[:MOST_NAME_CHARS]!r}: use at most {MOST_NAME_CHARS} printable characters")


def check_variable(where: str, name: object) -> None:
    """Raise `BadObject` for what is no name of an environment variable: it may be a secret, and is not repeated."""
    if name and not (isinstance(name, str) and _VARIABLE.fullmatch(name)):
        raise BadObject(f"{where} is no name of an environment variable: give the name, never the value")


def check_url(where: str, url: str) -> None:
    """Raise `BadObject` for what is no address, or holds a password."""
    if not url:
        return
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        has_host = False
    if not has_host or parts.scheme not in ("http", "https"):
        raise BadObject(f"{where} is no address: use https://host/path")
    if parts.username or parts.password:
        raise BadObject(f"{where} holds a password: name the variable that has the key instead")
