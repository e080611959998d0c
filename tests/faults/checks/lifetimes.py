"""No key without expiry remains, except the queue's own structure."""

from __future__ import annotations

from tests.faults.checks.findings import Verdict
from tests.faults.evidence import Evidence


def check_lifetimes(evidence: Evidence, verdict: Verdict) -> None:
    """Every key expires, or is one that the engine needs for as long as the queue is used."""
    allowed = {evidence.queue + rest for rest in evidence.structure}
    for key, lifetime_s in evidence.lifetimes.items():
        verdict.count("keys")
        if lifetime_s is None and key not in allowed:
            verdict.broken("key without expiry", key, "would stay for ever")
