"""What can go wrong when a trigger is fired.

TeamError
├── KeyReused          an idempotency key stands for something else: use a new one
└── TriggerSuspended   the trigger fires nothing until it is resumed
"""

from __future__ import annotations

from worker.teams.errors import TeamError


class KeyReused(TeamError):
    """An idempotency key stands for a request with another body."""


class TriggerSuspended(TeamError):
    """The trigger is suspended."""
