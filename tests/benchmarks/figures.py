"""Numbers from samples, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Sequence


def median(samples: Sequence[float]) -> float:
    """The middle value; of an even number, the mean of the middle two. Raises `ValueError` without samples."""
    if not samples:
        raise ValueError("median of no samples: the run that should have made them failed or was skipped")
    ordered = sorted(samples)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def paired(ones: Sequence[float], others: Sequence[float]) -> float:
    """How many times the others the ones are: median of the rounds, each sample beside that of its own round, for a
    machine may be half as fast again in one round as in the next. Raises `ValueError` without samples."""
    return median([one / other for one, other in zip(ones, others, strict=False)])


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that at least `percent` of all samples do not exceed (nearest rank)."""
    if not samples:
        raise ValueError("percentile of no samples: the run that should have made them failed or was skipped")
    rank = math.ceil(percent / 100 * len(samples))
    return sorted(samples)[max(rank, 1) - 1]


def spread(samples: Sequence[float]) -> float:
    """Largest over smallest sample: how far the rounds of one figure lie apart."""
    return max(samples) / min(samples) if samples and min(samples) > 0 else math.nan


def written(value: float | None) -> str:
    """Three significant digits, thousands separated; a dash for what was not measured."""
    if value is None or math.isnan(value):
        return "—"
    if value == 0:
        return "0"
    rounded = round(value, 2 - math.floor(math.log10(abs(value))))
    digits = 2 - math.floor(math.log10(abs(rounded)))  # of what it was rounded to: 99.96 has become 100
    return f"{rounded:,.{min(max(digits, 0), 3)}f}"
