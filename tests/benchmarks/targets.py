"""What Shoal wants to reach, and whether a run reached it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.benchmarks.figures import written


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
    section: str, figure: str, value: float, other: float, bound: float, than: str, unit: str
) -> Verdict:
    """The figure must be at least `bound` times another's, both from the same run."""
    ratio = value / other
    return Verdict(
        section=section,
        figure=figure,
        target=f"≥ {written(bound)} times {than}",
        measured=f"{written(ratio)} times",
        reached=ratio >= bound,
        compared=f"{written(value)} to {written(other)} {unit}",
    )


def ratio_at_most(section: str, figure: str, value: float, other: float, bound: float, than: str, unit: str) -> Verdict:
    """The figure must be at most `bound` times another's, both from the same run."""
    ratio = value / other
    return Verdict(
        section=section,
        figure=figure,
        target=f"≤ {written(bound)} times {than}",
        measured=f"{written(ratio)} times",
        reached=ratio <= bound,
        compared=f"{written(value)} to {written(other)} {unit}",
    )
