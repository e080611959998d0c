"""What an engine with asynchronous replication may lose: a task's last writes before a failover, and nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from tests.faults.checks.findings import Finding, Verdict
from tests.faults.evidence import Evidence
from tests.faults.schedule import FAILOVERS

WINDOW_S = 1.0
"""So long before the primary's end a write may not have reached the replica: far more than a loopback needs."""


def excuse_taken_back(evidence: Evidence, verdict: Verdict) -> None:
    """Findings of tasks that something was written of just before a failover are counted, and no findings any more.

    The harm stays in the figures: a lost task is one, whatever the reason.
    """
    moments = _moments(evidence)
    failovers = [fault for fault in evidence.faults if fault.kind in FAILOVERS]

    def is_excused(finding: Finding) -> bool:
        written = moments.get(finding.subject.partition(" ")[0], ())
        return finding.rule in evidence.takes_back and any(
            fault.at - WINDOW_S <= moment <= fault.until for fault in failovers for moment in written
        )

    for finding in verdict.findings:
        if is_excused(finding):
            verdict.count(f"taken back by a failover: {finding.rule}")
    verdict.findings = [finding for finding in verdict.findings if not is_excused(finding)]


def _moments(evidence: Evidence) -> Mapping[str, list[float]]:
    """Task id, and the task's key -> when something was written of it, as far as anybody else knows."""
    moments: defaultdict[str, list[float]] = defaultdict(list)
    for call in evidence.calls:
        moments[call.start.key] += (call.start.at, call.ended_at)
    for effect in evidence.effects:
        moments[effect.key].append(effect.at)
    for submission in evidence.submissions:
        key = submission.errand.plan.key
        moments[key].append(submission.at)
        for task_id in submission.ids:
            moments[task_id] = moments[key]
    return moments
