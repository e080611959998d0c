"""Where soaks are written down: a long one whole, and one line for each engine."""

from __future__ import annotations

from pathlib import Path

from tests.faults.brokers.engines import ENGINES
from tests.faults.report import HARMS, broker_restarts
from tests.faults.soak import Outcome

BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"
TABLE_BEGIN, TABLE_END = "<!-- soak engines: begin -->", "<!-- soak engines: end -->"
HEAD = (
    "| engine | tasks | minutes | faults | of them restarts, failovers | lost | duplicated | paid twice "
    "| effect repeated | options |"
)
RULE = "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|"


def write(path: Path, text: str) -> None:
    """Exchange what a document says of the long soak."""
    _exchange(path, BEGIN, text, END)


def write_row(path: Path, outcome: Outcome) -> None:
    """Exchange an engine's line in a document's table of engines."""
    rows = {_engine_of(line): line for line in _between(path, TABLE_BEGIN, TABLE_END).splitlines() if _engine_of(line)}
    rows[outcome.options.engine] = row(outcome)
    lines = [HEAD, RULE, *(rows[engine] for engine in ENGINES if engine in rows)]
    _exchange(path, TABLE_BEGIN, "\n".join(lines), TABLE_END)


def row(outcome: Outcome) -> str:
    """One engine's line: what it went through, and what came of it."""
    options, figures = outcome.options, outcome.figures
    harms = " | ".join(f"{figures.get(harm, 0):,}" for harm in HARMS)
    again = options.command.partition("tests.faults ")[2].removeprefix(f"--engine {options.engine} ")
    again = again.partition(" --workers")[0]  # those of the table's runs are the same
    return (
        f"| `{options.engine}`: {ENGINES[options.engine].setting} | {figures['accepted']:,} "
        f"| {outcome.took_s / 60:.1f} | {len(outcome.evidence.faults):,} | {broker_restarts(outcome):,} | {harms} "
        f"| `{again}` |"
    )


def _engine_of(line: str) -> str:
    return line.removeprefix("| `").partition("`")[0] if line.startswith("| `") else ""


def _between(path: Path, begin: str, end: str) -> str:
    document = path.read_text() if path.exists() else ""
    return document.partition(begin)[2].partition(end)[0]


def _exchange(path: Path, begin: str, text: str, end: str) -> None:
    """What stands between two marks is exchanged; without marks, or without a document, they are added."""
    document = path.read_text() if path.exists() else ""
    block = f"{begin}\n\n{text}\n\n{end}"
    before, has_begin, rest = document.partition(begin)
    _, has_end, after = rest.partition(end)
    if has_begin and has_end:
        path.write_text(f"{before}{block}{after}")
    else:
        path.write_text(f"{document.rstrip()}\n\n{block}\n".lstrip())
