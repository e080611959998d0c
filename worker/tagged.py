"""Texts between tags, for models to read: findings, summaries, what an advisor is told."""

from __future__ import annotations

import re

_FAMILY = "swarm:"


def tagged(tag: str, text: str) -> str:
    """The text between a tag and its end. It is data: it can neither end the tag nor begin another of its family."""
    name = re.escape(_FAMILY) if tag.startswith(_FAMILY) else rf"{re.escape(tag)}\b"
    safe = re.sub(rf"<(?=\s*/?\s*{name})", "&lt;", text, flags=re.IGNORECASE)
    return f"<{tag}>\n{safe}\n</{tag}>"
