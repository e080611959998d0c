"""Curves as SVG files that can be read on a light page and on a dark one: one style for all."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#767c84"
"""Text and axes: the grey that stands out from white as much as from near-black (more than 4:1)."""
COLOURS = ("#2f81f7", "#d9730d", "#2da160", "#bf5fd6", "#c9504a")
WIDTH_IN, HEIGHT_IN = 7.2, 3.6


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a plot."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False
    """What would be ideal, or was predicted, beside what was measured."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One picture. Its title says what was found."""

    name: str
    """The file, without ending."""
    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    log_x: bool = True
    log_y: bool = False


def draw(plot: Plot) -> str:
    """The picture as SVG text. Raises `ImportError` if matplotlib is not installed."""
    import matplotlib  # only those who measure have it
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "shoal",
        "font.family": "sans-serif",
        "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        _fill(figure, plot)
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Title": plot.title})
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()) + "\n"


def _fill(figure: Figure, plot: Plot) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes = figure.subplots()
    for number, curve in enumerate(plot.curves):
        axes.plot(
            curve.x,
            curve.y,
            label=curve.label,
            color=COLOURS[number % len(COLOURS)],
            linestyle="--" if curve.dashed else "-",
            marker=None if curve.dashed else "o",
            markersize=4.5,
            linewidth=1.8,
        )
    if plot.log_x:
        axes.set_xscale("symlog" if any(0 in curve.x for curve in plot.curves) else "log")
    highest = max(y for curve in plot.curves for y in curve.y)
    if plot.log_y:
        axes.set_yscale("log")
        lowest = min(y for curve in plot.curves for y in curve.y)
        few = highest / lowest > 1_000
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if few else (1.0, 2.0, 5.0), numticks=12))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(lowest / 1.4, highest * 1.6)
    else:
        axes.set_ylim(0, highest * 1.15)
    ticks = sorted({x for curve in plot.curves for x in curve.x})
    if len(ticks) <= 10 and all(x == round(x) for x in ticks):
        axes.set_xticks(ticks)
        axes.xaxis.set_minor_locator(NullLocator())
    elif plot.log_x:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(plot.title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    axes.grid(visible=True, which="major", color=INK, alpha=0.22, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    if len(plot.curves) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=9)


def short(value: float) -> str:
    """A tick's label: `10`, `1k`, `1M`."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
