"""Tables in Markdown, and the document that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.benchmarks.plots import Plot
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
    plots: Sequence[Plot] = ()
    """Drawn from the same figures, and shown below them."""


@dataclass(kw_only=True)
class Report:
    """What one section of a run found, in the order in which it was measured."""

    section: str = ""
    measured_at: str = ""
    """When that was, in UTC."""
    seconds: float = 0.0
    """How long it took."""
    machine: str = ""
    """Where and with what it was measured."""
    tables: list[Table] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """What could not be measured, and why."""
    figures: dict[str, float] = field(default_factory=dict)
    """Numbers by name that others calculate with: the capacity model."""
    curves: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """The same where one number would not do: points by name."""


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures. Raises `ValueError` for a row of other width."""
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"row {row!r} has {len(row)} cells, the table has {len(columns)} columns")
    lines = [_line(columns), _line(["---", *["---:"] * (len(columns) - 1)])]
    return "\n".join([*lines, *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def render(reports: Sequence[Report]) -> str:
    """The generated part of the document: when and where, verdicts, losses by name, then every table."""
    parts = _origins(reports)
    verdicts = [verdict for report in reports for verdict in report.verdicts]
    failures = [failure for report in reports for failure in report.failures]
    if verdicts:
        parts += ["## Targets", _verdicts(verdicts), _losses(verdicts)]
    if failures:
        parts += ["## Not measured", "\n".join(f"- {failure}" for failure in failures)]
    parts += [part for report in reports for table in report.tables for part in _shown(table)]
    return "\n\n".join(parts) + "\n"


def render_tables(report: Report) -> str:
    """One section alone, for a page of its own: when and where, and its tables."""
    return "\n\n".join([*_origins([report]), *(part for table in report.tables for part in _shown(table))]) + "\n"


def _shown(table: Table) -> list[str]:
    notes = "\n".join(f"- {note}" for note in table.notes)
    plots = [f"![{plot.title}](plots/{plot.name}.svg)" for plot in table.plots]
    return [f"## {table.title}", markdown_table(table.columns, table.rows), *([notes] if notes else []), *plots]


def _origins(reports: Sequence[Report]) -> list[str]:
    """Where each part was measured and when, parts of the same machine together."""
    machines = list(dict.fromkeys(report.machine for report in reports))
    found = []
    for machine in machines:
        parts = ", ".join(
            f"{report.section} {report.measured_at} ({report.seconds:.0f} s)"
            for report in reports
            if report.machine == machine
        )
        found.append(f"{machine} When each part was measured, in UTC, and how long that took: {parts}.")
    return found


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
