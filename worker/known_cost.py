"""A cost that is not known is shown as such, and not as nothing."""

from __future__ import annotations

from typing import Protocol


class Spending(Protocol):
    """Counts of calls and what they cost."""

    @property
    def calls(self) -> int:
        """All of them."""
        ...

    @property
    def unpriced_calls(self) -> int:
        """Those whose cost is not known."""
        ...

    @property
    def cost_usd(self) -> float:
        """Of the others."""
        ...


def is_unpriced(calls: int, unpriced_calls: int) -> bool:
    """Whether calls were made, and of none the price is known."""
    return 0 < calls == unpriced_calls


def known_cost_usd(spending: Spending) -> float | None:
    """What to show as a cost; None: not known."""
    return None if is_unpriced(spending.calls, spending.unpriced_calls) else spending.cost_usd
