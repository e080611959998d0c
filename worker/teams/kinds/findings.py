"""What reading a file finds: errors, which make it unusable, warnings and notes. Each names the file, line, column and
field."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from worker.teams.errors import BadTeamFile
from worker.teams.kinds.nodes import Node

Severity = Literal["error", "warning", "note"]

MAX_FINDINGS = 300
"""More of one file help nobody, and take long to find."""


class EnoughFound(Exception):
    """There are so many findings that reading stops."""


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was found. Its text is one line: `team.yaml:12:5: warning: spec.steps[1].foo: unknown field`."""

    severity: Severity
    file: str
    line: int
    column: int
    field: str
    message: str

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        return f"{self.file}:{self.line}:{self.column}: {self.severity}: {field}{self.message}"


class Findings:
    """Collects what is found in one file, in the order of its lines."""

    def __init__(self, file: str) -> None:
        self._file = printable(file)
        self._found: list[Finding] = []
        self._noted: set[str] = set()

    def error(self, node: Node, message: str, *, line: int = 0, column: int = 0) -> None:
        """The file cannot be used. `line` and `column` if they are not the node's own."""
        self._add("error", node, message, line, column)

    def warning(self, node: Node, message: str, *, line: int = 0, column: int = 0) -> None:
        """Probably a mistake."""
        self._add("warning", node, message, line, column)

    def note(self, node: Node, message: str) -> None:
        """Something that is done differently here, or not at all."""
        self._add("note", node, message, 0, 0)

    def note_once(self, subject: str, node: Node, message: str) -> None:
        """A note about a field that may occur many times: the first occurrence is told."""
        if subject not in self._noted:
            self._noted.add(subject)
            self.note(node, message)

    def _add(self, severity: Severity, node: Node, message: str, line: int, column: int) -> None:
        found = Finding(
            severity=severity,
            file=self._file,
            line=line or node.line,
            column=column or node.column,
            field=_line(node.path),
            message=_line(message),
        )
        if found in self._found:
            return
        self._found.append(found)
        if len(self._found) >= MAX_FINDINGS:
            raise EnoughFound

    def stop(self) -> None:
        """Say that reading stopped."""
        last = self._found[-1]
        message = f"reading stopped here, after {len(self._found)} findings"
        self._found.append(
            Finding(severity="error", file=self._file, line=last.line, column=last.column, field="", message=message)
        )

    @property
    def has_errors(self) -> bool:
        """Whether the file is unusable."""
        return any(found.severity == "error" for found in self._found)

    def all(self) -> tuple[Finding, ...]:
        """Everything, by line."""
        return tuple(sorted(self._found, key=lambda found: (found.line, found.column)))

    def refuse_errors(self) -> None:
        """Raises `BadTeamFile` with one line for each error, if there is one."""
        errors = [found for found in self.all() if found.severity == "error"]
        if errors:
            raise BadTeamFile("\n".join(map(str, errors)))


def _line(text: str) -> str:
    """Text of others as one line that steers no terminal."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Text of others without what steers terminals."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
