"""Where something stands in a template: lines and columns, counted from 1, in characters."""

from __future__ import annotations

from worker.teams.errors import TemplateError


def error_at(text: str, at: int, reason: str, name: str) -> TemplateError:
    """The error that points at the character with index `at`."""
    line, column = line_and_column(text, at)
    return TemplateError(reason, line=line, column=column, name=name)


def line_and_column(text: str, at: int) -> tuple[int, int]:
    """Of the character with index `at`."""
    at = min(max(at, 0), len(text))
    start = text.rfind("\n", 0, at) + 1
    return text.count("\n", 0, at) + 1, at - start + 1
