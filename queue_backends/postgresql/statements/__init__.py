"""Every statement as SQL. They say `shoal.` for whatever schema the URL names."""

from __future__ import annotations

import functools
import importlib.resources
import re

_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)
_SCHEMA = re.compile(r"\bshoal\.")


def in_schema(text: str, schema: str) -> str:
    """SQL that says `shoal.` for another schema. The schema's name has been checked to need no escaping."""
    return _SCHEMA.sub(f'"{schema}".', text)


@functools.cache
def statement(name: str, schema: str) -> bytes:
    """One statement's text, without its comments."""
    text = importlib.resources.files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
    return in_schema(_COMMENT.sub("", text), schema).strip().encode()
