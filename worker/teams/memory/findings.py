"""Findings of earlier work as text: what is kept of a piece of work, and how a prompt tells of it. Pure.

Source: ark's loop policy (`<swarm:prior-findings>`, `maxTokens` 1024 at four characters each).
"""

from __future__ import annotations

from collections.abc import Sequence

from worker.tagged import tagged
from worker.teams.memory.shortening import shortened

MOST_CHARS = 4 * 1024
"""Of a finding."""
_MOST_ASKED_CHARS = MOST_CHARS // 4
_BETWEEN = "\n---\n"


def finding(asked: str, answered: str) -> str:
    """What was asked and answered, shortened."""
    head = f"Task: {shortened(asked.strip(), _MOST_ASKED_CHARS)}\nAnswer: "
    return head + shortened(answered.strip(), MOST_CHARS - len(head))


def preface(findings: Sequence[str]) -> str:
    """What comes before a prompt; nothing for no findings. They are data: the tags that hold them cannot be ended or
    begun from inside."""
    if not findings:
        return ""
    return tagged("swarm:prior-findings", _BETWEEN.join(findings)) + "\n\n"
