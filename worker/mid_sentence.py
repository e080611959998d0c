"""Somebody else's message as the rest of a sentence of ours."""

from __future__ import annotations


def mid_sentence(message: str) -> str:
    """The message with a small first letter; an acronym that it begins with, such as JSON, stays."""
    return message if message[1:2].isupper() else message[:1].lower() + message[1:]
