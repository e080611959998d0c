"""Tables in Markdown, and the document that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.benchmarks.targets import Verdict

BEGIN = "<!-- generated: begin -->"
END = "<!-- generated: end -->"


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of figures under a heading; the first column names the row."""

    section: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(kw_only=True)
class Report:
    """What a run found, in the order in which it was measured."""

    machine: str = ""
    """Where and with what it was measured."""
    tables: list[Table] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """What could not be measured, and why."""


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures. Raises `ValueError` for a row of other width."""
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"row {row!r} has {len(row)} cells, the table has {len(columns)} columns")
    lines = [_line(columns), _line(["---", *["---:"] * (len(columns) - 1)])]
    return "\n".join([*lines, *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def render(report: Report) -> str:
    """The generated part of the document: verdicts first, losses by name, then every table."""
    parts = [report.machine]
    if report.verdicts:
        parts += ["## Targets", _verdicts(report.verdicts), _losses(report.verdicts)]
    if report.failures:
        parts += ["## Not measured", "\n".join(f"- {failure}" for failure in report.failures)]
    for table in report.tables:
        parts += [f"## {table.title}", markdown_table(table.columns, table.rows)]
        if table.notes:
            parts.append("\n".join(f"- {note}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    rows = [(v.figure, v.target, v.measured, v.compared or "—", v.word) for v in verdicts]
    return markdown_table(["figure", "target", "measured", "that is", "verdict"], rows)


def _losses(verdicts: Sequence[Verdict]) -> str:
    missed = [v for v in verdicts if not v.reached]
    count = f"{len(verdicts) - len(missed)} of {len(verdicts)} targets reached."
    if not missed:
        return count
    lost = "\n".join(f"- {v.figure}: {v.measured} instead of {v.target}" for v in missed)
    return f"{count} Missed:\n\n{lost}"


def replaced(document: str, generated: str) -> str:
    """The document with its generated part exchanged. Raises `ValueError` if it has no such part."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no {BEGIN!r} … {END!r}: put both lines where the tables shall stand")
    return f"{head}{BEGIN}\n\n{generated}\n{END}{tail}"
