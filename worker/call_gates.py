"""What stands before each model call and lets it through, or not: budgets and rate limits, for the whole fleet."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from providers import AgentConfig, TurnRequest
from providers.tool_loop import TurnRecord
from queue_backends import CallOutcome, Task, UsageRecord
from worker.budgets.rules import BudgetRule


class Receipt(Struct, kw_only=True):
    """What a call was let through on; the gates write it, and it goes into the call's usage record."""

    charged_to: tuple[str, ...] = ()
    """The accounts of budgets."""
    expected: tuple[int, int] = (0, 0)
    """Tokens and millionths of a US dollar that were reserved there."""

    def noted_in(self, entry: UsageRecord) -> UsageRecord:
        """The record of the call that says so too."""
        if not self.charged_to:
            return entry
        expected = self.expected if is_charged_as_expected(entry) else None
        return replace(entry, charged_to=self.charged_to, charged=expected)


def is_charged_as_expected(entry: UsageRecord) -> bool:
    """Whether a call spends what was reserved for it: it was answered, or cut, by a provider that does not say what it
    used. One that failed has spent nothing then."""
    usage = entry.usage
    return usage.input_tokens is None and usage.output_tokens is None and entry.outcome is not CallOutcome.FAILED


class ModelCallIntent(Struct, frozen=True, kw_only=True):
    """A model call that is about to be sent."""

    id: str
    """That of its usage record: `<task id>:<turn>:<attempt>`."""
    task: Task
    config: AgentConfig
    """Its provider and model are the ones that will be called."""
    request: TurnRequest
    provider: str
    """Registry name, also where the configuration leaves it to the model's name."""
    team: str = ""
    role: str = ""
    budgets: tuple[BudgetRule, ...] = ()
    """Those that come with the task, beside the fleet's: its team's and its role's."""
    receipt: Receipt = field(default_factory=Receipt)


class CallGate(Protocol):
    """One reason why a call may have to wait or be refused. Several stand in a row, each is entered before the call and
    left after it, in the opposite order."""

    @property
    def active(self) -> bool:
        """Whether there is anything to ask at present; a gate that is not is passed without waiting."""
        ...

    async def enter(self, intent: ModelCallIntent) -> None:
        """Reserve what the call needs, waiting for it at most a bounded time.

        Raises `BudgetExceeded`, or `worker.errors.Postponed` if the task shall give its slot back and come again.
        """
        ...

    async def leave(self, intent: ModelCallIntent, record: TurnRecord, usage: UsageRecord) -> None:
        """The call has ended: settle its reservation with what it really used. A store that is away is no error."""
        ...

    def note(self, intent: ModelCallIntent, record: TurnRecord, usage: UsageRecord) -> None:
        """As `leave`, for a run that was cancelled and must not wait: the store hears of it a little later."""
        ...

    def abandon(self, intent: ModelCallIntent) -> None:
        """The call was not sent after all: give the reservation back. Must not wait."""
        ...
