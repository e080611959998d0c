"""No key without expiry remains, except the queue's own structure."""

from __future__ import annotations

from tests.faults.checks.findings import Verdict
from tests.faults.evidence import Evidence

STRUCTURE = {
    "": "the task stream; entries go when they are acknowledged",
    ":high": "the same, for urgent tasks",
    ":low": "the same, for patient tasks",
    "-results": "the results; each field goes after the retention time",
    ":results-expiry": "when each result goes",
    "-dead": "the dead letters, capped by number",
    ":delayed": "retries and scheduled tasks, until they are due",
    ":delayed-entries": "the same tasks' entries",
    ":moved": "where a task's entry is, until the task ends",
    ":paused": "exists while the queue is paused",
}
"""What follows the queue's name -> why that key has no end of its own."""


def check_lifetimes(evidence: Evidence, verdict: Verdict) -> None:
    """Every key expires, or is one of `STRUCTURE`."""
    allowed = {evidence.queue + rest for rest in STRUCTURE}
    for key, lifetime_s in evidence.lifetimes.items():
        verdict.count("keys")
        if lifetime_s is None and key not in allowed:
            verdict.broken("key without expiry", key, "would stay for ever")
