"""What one worker holds in one account: the truth that the account's own entry is a copy of."""

from __future__ import annotations

from worker.budgets.account import Amount, Hold


class Held:
    """The calls of this worker that are charged to an account and have not ended.

    Each write of the account says anew what is held, so that a write whose answer was lost, or an account that was lost
    altogether, changes nothing about it. Changes of the account bring it up to date as they are made (`Shadow`):
    what one did in a try that failed is undone before the next.
    """

    __slots__ = ("_before", "_calls", "amount", "opened_at", "until")

    def __init__(self) -> None:
        self._calls: dict[int, Amount] = {}
        self._before: dict[int, Amount | None] = {}
        """What was held for the calls that the present try is about."""
        self.amount = Amount()
        """All of them together."""
        self.until = 0.0
        """Until when the account says so, as far as is known (Unix seconds)."""
        self.opened_at = 0.0
        """When the account began, as it said when it was last seen."""

    @property
    def calls(self) -> int:
        """How many there are."""
        return len(self._calls)

    def begin(self) -> None:
        """A step is tried, perhaps once more."""
        for number, amount in self._before.items():
            self._set(number, amount)
        self._before.clear()

    def keep(self) -> None:
        """The step was made."""
        self._before.clear()

    def try_to_hold(self, number: int, amount: Amount) -> None:
        """In a change: hold an amount for the call of this number."""
        self._before.setdefault(number, self._calls.get(number))
        self._set(number, amount)

    def try_to_drop(self, *numbers: int) -> None:
        """In a change: these calls have ended; harmless for those that it does not know."""
        for number in numbers:
            self._before.setdefault(number, self._calls.get(number))
            self._set(number, None)

    def hold(self, number: int, amount: Amount) -> None:
        """Whatever becomes of a step."""
        self._before.pop(number, None)
        self._set(number, amount)

    def drop(self, *numbers: int) -> None:
        """Whatever becomes of a step."""
        for number in numbers:
            self._before.pop(number, None)
            self._set(number, None)

    def said(self, until: float) -> Hold:
        """What the account is to say."""
        self.until = until
        return Hold(self.amount, len(self._calls), until)

    def _set(self, number: int, amount: Amount | None) -> None:
        if (before := self._calls.pop(number, None)) is not None:
            self.amount -= before
        if amount is not None:
            self._calls[number] = amount
            self.amount += amount
