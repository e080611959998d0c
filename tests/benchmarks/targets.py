"""What Shoal wants to reach, and whether a run reached it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.benchmarks.figures import median, paired, written


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One target beside what was measured."""

    section: str
    figure: str
    target: str
    measured: str
    reached: bool
    compared: str = ""
    """With what a ratio was taken, and that one's own figure."""

    @property
    def word(self) -> str:
        return "reached" if self.reached else "**missed**"


def at_least(section: str, figure: str, value: float, bound: float, unit: str) -> Verdict:
    """The figure must not fall below the bound."""
    return Verdict(
        section=section,
        figure=figure,
        target=f"≥ {written(bound)} {unit}",
        measured=f"{written(value)} {unit}",
        reached=value >= bound,
    )


def at_most(section: str, figure: str, value: float, bound: float, unit: str) -> Verdict:
    """The figure must not exceed the bound."""
    return Verdict(
        section=section,
        figure=figure,
        target=f"≤ {written(bound)} {unit}",
        measured=f"{written(value)} {unit}",
        reached=value <= bound,
    )


def ratio_at_least(
    section: str, figure: str, values: Sequence[float], others: Sequence[float], bound: float, than: str, unit: str
) -> Verdict:
    """The figure must be at least `bound` times another's, round by round of the same run."""
    return _ratio(section, figure, values, others, f"≥ {written(bound)} times {than}", unit, lambda r: r >= bound)


def ratio_at_most(
    section: str, figure: str, values: Sequence[float], others: Sequence[float], bound: float, than: str, unit: str
) -> Verdict:
    """The figure must be at most `bound` times another's, round by round of the same run."""
    return _ratio(section, figure, values, others, f"≤ {written(bound)} times {than}", unit, lambda r: r <= bound)


def _ratio(
    section: str,
    figure: str,
    values: Sequence[float],
    others: Sequence[float],
    target: str,
    unit: str,
    reaches: Callable[[float], bool],
) -> Verdict:
    ratio = paired(values, others)
    return Verdict(
        section=section,
        figure=figure,
        target=target,
        measured=f"{written(ratio)} times",
        reached=reaches(ratio),
        compared=f"{written(median(values))} to {written(median(others))} {unit}",
    )
