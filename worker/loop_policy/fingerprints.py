"""By what the same tool call is recognised."""

from __future__ import annotations

import hashlib

from providers import ToolCall
from providers.tool_loop import arguments_of, canonical


def fingerprint(call: ToolCall) -> str:
    """The same for the same tool with the same arguments, in whatever order they are written."""
    try:
        arguments = canonical(arguments_of(call))
    except (ValueError, RecursionError):  # a model may write what no JSON can hold
        arguments = call.arguments
    return fingerprint_of(call.name, arguments)


def fingerprint_of(name: str, arguments: str) -> str:
    """As `fingerprint`, of arguments that are in canonical form. Source: ark's loop policy."""
    return hashlib.sha256(f"{name}\0{arguments}".encode("utf-8", "replace")).hexdigest()
