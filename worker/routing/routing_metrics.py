"""What a worker counts about its routes; `worker/metric_families.py` gives it names."""

from __future__ import annotations

from collections.abc import Callable

MOST_LABELS = 1000
OTHER = "(other)"


class RoutingMetrics:
    """Counters by label values. Adding is cheap and never waits."""

    def __init__(self) -> None:
        self.failovers: dict[tuple[str, str, str, str], int] = {}
        """(route, from, to, reason) -> calls that went elsewhere."""
        self.hedges: dict[tuple[str, str, str], int] = {}
        """(route, target, outcome) -> second calls: `won`, `lost` or `failed`."""
        self.circuits: Callable[[], list[tuple[str, str, str]]] = list
        """(provider, model, circuit) of all targets, as they stand now."""

    def failed_over(self, route: str, before: str, target: str, reason: str) -> None:
        """A call went to `target` instead of `before`."""
        key = (route, before, target, reason)
        if key not in self.failovers and len(self.failovers) >= MOST_LABELS:
            key = (OTHER, OTHER, OTHER, reason)
        self.failovers[key] = self.failovers.get(key, 0) + 1

    def hedged(self, route: str, target: str, outcome: str) -> None:
        """A second call to `target` has ended."""
        key = (route, target, outcome)
        if key not in self.hedges and len(self.hedges) >= MOST_LABELS:
            key = (OTHER, OTHER, outcome)
        self.hedges[key] = self.hedges.get(key, 0) + 1
