"""One firing of a trigger: claimed once in the whole fleet, carried out as often as it takes, told of once."""

from __future__ import annotations

import enum
import hashlib
from datetime import UTC, datetime
from typing import Any, Literal

from msgspec import Struct

from worker.objects import Stored
from worker.teams.triggers.model import ConcurrencyPolicy, Target, Trigger

MOST_CHAINED = 8
"""So many triggers may follow upon each other's runs: one more would most likely go round for ever."""
CHAIN = "trigger-chain"
"""Label of runs: how many triggers, one after another, led to it."""
FIRING = "trigger-firing"
"""Label of runs: the id of the firing that started it."""

Source = Literal["cron", "webhook", "team-output", "manual"]


class FiringState(enum.StrEnum):
    """How far a firing has come."""

    CLAIMED = "claimed"
    """Somebody is at it."""
    GOING = "going"
    """Its runs may be started: nothing stands against it."""
    FIRED = "fired"
    """All is done; some of its targets may have failed."""
    SKIPPED = "skipped"
    """Nothing was started, for `reason`."""
    FAILED = "failed"
    """None of its targets could be run."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more is done for it."""
        return self in (FiringState.FIRED, FiringState.SKIPPED, FiringState.FAILED)


class Dispatch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one target."""

    target: str
    """Name of the team or agent."""
    run_id: str = ""
    error: str = ""
    """Why no run was started."""


class Given(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a firing's templates see, beside name and moment."""

    body: Any = None
    """`webhook`: the request's JSON."""
    output: str = ""
    """`team-output`: what the run said, and which one it was."""
    run: str = ""
    team: str = ""
    phase: str = ""


class Firing(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A firing as it is kept: all that is needed to carry it out, whatever becomes of the trigger meanwhile."""

    id: str
    trigger: str
    """Its slug."""
    namespace: str = ""
    object_id: int
    source: Source
    fired_at: float
    """The tick, or the moment of what fired it. Unix seconds."""
    claimed_at: float = 0.0
    claimed_by: str = ""
    targets: tuple[Target, ...] = ()
    concurrency: ConcurrencyPolicy = "Allow"
    tenant: str = ""
    """Of the runs."""
    given: str = ""
    """Digest of what the templates see; empty: nothing. It is kept apart until the firing is over."""
    chain: int = 1
    is_single: bool = False
    """Its id is nobody else's: it need not be remembered, once it is over, for being claimed again."""
    state: FiringState = FiringState.CLAIMED
    reason: str = ""
    dispatches: tuple[Dispatch, ...] = ()
    is_noted: bool = False
    """It is over, and stands in the history."""

    @property
    def run_ids(self) -> tuple[str, ...]:
        """Of the runs that it starts, one for each target, whether they were started yet or not."""
        stem = f"{self.trigger}-{self.id[:16]}"
        if len(self.targets) <= 1:
            return (stem,)
        return tuple(f"{stem}-{index}" for index in range(1, len(self.targets) + 1))

    @property
    def moment(self) -> str:
        """When it fired, as templates and answers have it: RFC 3339."""
        return rfc3339(self.fired_at)

    @property
    def started(self) -> tuple[str, ...]:
        """The runs that were started."""
        return tuple(each.run_id for each in self.dispatches if each.run_id)

    @property
    def error(self) -> str:
        """What went wrong, in one line; empty: nothing."""
        if self.state is FiringState.FAILED and self.reason:
            return self.reason
        return "; ".join(f"{each.target}: {each.error}" for each in self.dispatches if each.error)


def firing_id(stored: Stored[Trigger], *what: object) -> str:
    """The id of what fires a trigger: the same in each process that sees the same thing happen."""
    told = "\0".join(str(part) for part in (stored.value.namespace, stored.value.slug, stored.id, *what))
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def rfc3339(moment: float) -> str:
    """A moment in seconds: `2026-11-21T09:00:00Z`."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
