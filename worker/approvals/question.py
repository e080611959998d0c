"""`Approval`: a question to a person, and its answer once there is one."""

from __future__ import annotations

import enum
from typing import Any, Literal

from msgspec import Struct

LONGEST_MESSAGE_CHARS = 8000


def shortened(message: str) -> str:
    """What is asked, no longer than a person reads. It may hold whatever a model said."""
    if len(message) <= LONGEST_MESSAGE_CHARS:
        return message
    return f"{message[:LONGEST_MESSAGE_CHARS]}… [cut: {len(message)} characters]"


class Verdict(enum.StrEnum):
    """What a question has come to."""

    WAITING = "waiting"
    APPROVE = "approve"
    REJECT = "reject"
    SKIP = "skip"
    """Nobody answered in time, and the step is to be left out then."""


class Approval(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A question, and its answer once there is one. It holds no secret: arguments are redacted before they get here."""

    id: str = ""
    """Given when the question is put."""
    what: Literal["plugin", "tool", "step"] = "plugin"
    """Who asks: a remote plugin, a tool's call, a step of a team."""
    message: str = ""
    """What is asked."""
    tenant: str = ""
    run: str = ""
    """Of a team; of a plugin: its execution."""
    step: str = ""
    task: str = ""
    """Which waits for the answer without a worker, and is woken by it. Empty: nobody's task."""
    agent: str = ""
    team: str = ""
    role: str = ""
    tool: str = ""
    call_id: str = ""
    arguments: Any = None
    """Of the tool's call, redacted."""
    permission: str = ""
    context: str = ""
    """What a plugin says of it besides."""
    asked_at: float = 0.0
    """Unix seconds."""
    until: float = 0.0
    """When nobody waits for the answer any more. Unix seconds."""
    fallback: Literal["reject", "approve", "skip"] = "reject"
    """What counts if nobody answers in time."""
    decided: bool = False
    approved: bool = False
    timed_out: bool = False
    """Nobody has answered, and the fallback counts."""
    withdrawn: bool = False
    """Whoever asked has ended: there is nothing to answer any more."""
    reviewer: str = ""
    """Who has answered."""
    comment: str = ""
    decided_at: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """What it has come to."""
        if not self.decided:
            return Verdict.WAITING
        if self.approved:
            return Verdict.APPROVE
        return Verdict.SKIP if self.timed_out and self.fallback == "skip" else Verdict.REJECT

    def is_open(self, now: float) -> bool:
        """Whether somebody waits for an answer at that moment, Unix seconds."""
        return not self.decided and now < self.until
