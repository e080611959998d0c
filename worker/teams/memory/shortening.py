"""Texts that are longer than a memory holds. Pure."""

from __future__ import annotations

MARK = "\n[…]\n"
"""Stands where something was left out."""


def shortened(text: str, most_chars: int) -> str:
    """Its beginning and its end, if it is longer: prompts end with what is asked, answers with what follows."""
    if len(text) <= most_chars:
        return text
    end = (most_chars - len(MARK)) // 3
    return text[: most_chars - len(MARK) - end] + MARK + text[len(text) - end :]
