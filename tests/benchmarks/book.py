"""What was measured, kept beside the page as JSON, so that a run of some parts leaves the others as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tests.benchmarks.plots import draw
from tests.benchmarks.report import Report, render, render_tables, replaced
from worker.capacity.figures import MEASURED, Figures, Measured

FOLDER = "plots"
COEFFICIENTS = "growth"
"""The section whose figures the capacity model uses."""

PAGES_OF_THEIR_OWN = {"capacity": "scaling.md"}
"""Section -> the page beside this one that has its tables."""

_decode = msgspec.json.Decoder(list[Report]).decode


class Book:
    """The page `benchmarks.md`; beside it its figures `benchmarks.json`, the folder `plots`, the pages of sections."""

    def __init__(self, page: Path, order: Sequence[str]) -> None:
        self.page = page
        self.data = page.with_suffix(".json")
        self._order = order

    def reports(self) -> dict[str, Report]:
        """All sections, those of earlier runs too, in the order of the page."""
        found = {report.section: report for report in _decode(self.data.read_bytes())} if self.data.exists() else {}
        return {name: found[name] for name in self._order if name in found}

    def put(self, measured: Sequence[Report]) -> None:
        """Exchange these sections, keep the others, and write page, figures and plots anew."""
        reports = self.reports() | {report.section: report for report in measured}
        ordered = [reports[name] for name in self._order if name in reports]
        pages = {self.page: render([_without_tables(report) for report in ordered])}
        for report in ordered:
            if name := PAGES_OF_THEIR_OWN.get(report.section):
                pages[self.page.with_name(name)] = render_tables(report)
        texts = {page: replaced(page.read_text(), text) for page, text in pages.items()}
        encoded = msgspec.json.format(msgspec.json.encode(ordered), indent=1)
        self._draw(ordered)
        self.data.write_bytes(encoded + b"\n")
        for page, text in texts.items():
            page.write_text(text)

    def _draw(self, reports: Sequence[Report]) -> None:
        folder = self.page.parent / FOLDER
        folder.mkdir(exist_ok=True)
        plots = {plot.name: plot for report in reports for table in report.tables for plot in table.plots}
        for name, plot in plots.items():
            (folder / f"{name}.svg").write_text(draw(plot))
        for stale in folder.glob("*.svg"):
            if stale.stem not in plots:
                stale.unlink()


def _without_tables(report: Report) -> Report:
    return dataclasses.replace(report, tables=[]) if report.section in PAGES_OF_THEIR_OWN else report


def write_coefficients(reports: Mapping[str, Report], path: Path = MEASURED) -> None:
    """Give the capacity model the figures of the page. Raises `ValueError` if a curve is missing among them; then the
    model keeps those that it has."""
    report = reports.get(COEFFICIENTS)
    if report is None or not report.figures:
        return
    figures: dict[str, object] = {**report.figures, **report.curves}
    try:
        msgspec.convert(figures, Figures)
    except msgspec.ValidationError as error:
        raise ValueError(f"section {COEFFICIENTS} is not complete, measure it again: {error}") from error
    measured = Measured(measured_at=report.measured_at, machine=report.machine, figures=figures)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(measured), indent=1) + b"\n")
