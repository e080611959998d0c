"""Reads a docstring in Google's style: what the function does, and what each argument means."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

_SECTION = re.compile(r"(Args|Arguments|Parameters|Returns|Yields|Raises|Examples?|Notes?|Attributes):\s*")
_ARGUMENT = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")


def read_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The text before the first section, and the description of each argument of an "Args:" section."""
    lines = (inspect.getdoc(function) or "").splitlines()
    intro: list[str] = []
    arguments: list[str] = []
    section = ""
    for line in lines:
        if match := _SECTION.fullmatch(line):
            section = match[1]
        elif not section:
            intro.append(line)
        elif section in {"Args", "Arguments", "Parameters"}:
            arguments.append(line)
    return "\n".join(intro).strip(), _arguments(arguments)


def _arguments(lines: list[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    current: list[str] = []
    margin = min((_indent(line) for line in lines if line.strip()), default=0)
    for line in lines:
        match = _ARGUMENT.fullmatch(line.strip()) if _indent(line) == margin else None
        if match:
            current = found.setdefault(match[1], [])
            current.append(match[2])
        elif line.strip():
            current.append(line.strip())
    return {name: " ".join(part for part in parts if part) for name, parts in found.items()}


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
