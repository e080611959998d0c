"""Looks at the evidence of a run and says what is wrong with it."""

from __future__ import annotations

from tests.faults.checks.calls import check_calls
from tests.faults.checks.effects import check_effects
from tests.faults.checks.endings import check_endings
from tests.faults.checks.findings import Verdict
from tests.faults.checks.lifetimes import check_lifetimes
from tests.faults.checks.streams import check_streams
from tests.faults.checks.taken_back import excuse_taken_back
from tests.faults.evidence import Evidence

CHECKS = (check_endings, check_streams, check_calls, check_effects, check_lifetimes)


def check(evidence: Evidence) -> Verdict:
    """Apply every check."""
    verdict = Verdict()
    for fault in evidence.faults:
        verdict.count(f"fault: {fault.kind}")
    for one in CHECKS:
        one(evidence, verdict)
    excuse_taken_back(evidence, verdict)
    return verdict
