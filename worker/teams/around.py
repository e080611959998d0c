"""What the driving of runs needs, and how a drive may end before its run does."""

from __future__ import annotations

from msgspec import Struct

from queue_backends import Backend
from worker.approvals import Approvals
from worker.teams.run_spans import RunSpans
from worker.teams.runs import Runs


class Resting(Struct, frozen=True, kw_only=True):
    """A run that needs nobody for now."""

    until: float
    """When time alone lets it go on. Unix seconds."""
    waits_for: tuple[str, ...]
    """Approvals, each of which lets it go on."""


class Around(Struct, frozen=True, kw_only=True):
    """What the driving of runs needs."""

    backend: Backend
    runs: Runs
    approvals: Approvals
    spans: RunSpans | None = None
    """Where runs and steps are traced; None: nowhere."""
