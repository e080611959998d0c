"""What a run is from its first moment on and never changes, and what a list of runs shows."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from queue_backends import TokenUsage
from worker.teams.run_state import Phase


class RunHeader(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which plan a run goes by, with what, and for whom."""

    id: str
    team: str
    plan: str
    """The plan's digest."""
    input: dict[str, Any] = {}
    tenant: str = ""
    trigger: str = ""
    """What started it: the name of a trigger; empty: a person or a program."""
    parent: tuple[str, str] | None = None
    """The run and its step that this one works for."""
    max_tokens: int = 0
    """What that run had left when this one began, if it has a limit; 0: no limit but the team's own."""
    is_local: bool = False
    """Its tasks are in a private queue: only the process that holds that drives it."""
    labels: dict[str, str] = {}
    created_at: float = 0.0
    """Unix seconds."""
    traceparent: str = ""
    tracestate: str = ""
    keep_s: float = 30 * 86_400.0
    """How long it can be read after its end."""


class RunSummary(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run in a list."""

    id: str
    team: str
    phase: Phase = Phase.PENDING
    reason: str = ""
    message: str = ""
    tenant: str = ""
    trigger: str = ""
    parent: tuple[str, str] | None = None
    is_local: bool = False
    is_interrupted: bool = False
    """Of a local run: its process is gone, and nobody goes on with it. Found out when it is listed, not stored."""
    labels: dict[str, str] = {}
    plan: str = ""
    steps: int = 0
    steps_ended: int = 0
    usage: TokenUsage = TokenUsage()
    cost_usd: float | None = None
    created_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0

    @property
    def tokens(self) -> int:
        """All that it used."""
        return self.usage.total_tokens
