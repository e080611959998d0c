"""A step that a person has to allow first: the question, and what its answer means for the run."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from worker.approvals import Approval, Approvals, Verdict
from worker.approvals.question import shortened
from worker.errors import ApprovalNotFound
from worker.teams.errors import TemplateError
from worker.teams.folding import Folding
from worker.teams.rendering import rendered, view
from worker.teams.run_events import ApprovalAsked, ApprovalDecided

LONGEST_WAIT_S = 3600.0


async def ask(approvals: Approvals, folding: Folding, name: str) -> ApprovalAsked:
    """Put the question of a step; asked twice, it is put once."""
    step, header = folding.team.step(name), folding.header
    assert step.approval is not None  # noqa: S101 - only then is anybody asked; mypy cannot see that
    try:
        message = rendered(step.approval.message, view(folding.team, folding.state()), f"steps.{name}.approval.message")
    except TemplateError as error:
        message = f"{step.approval.message} ({error})"
    question = Approval(
        what="step",
        message=shortened(message) or f"Shall step {name} of {folding.team.name} begin?",
        tenant=header.tenant,
        run=header.id,
        step=name,
        team=folding.team.name,
        role=step.role,
        fallback=step.approval.fallback,
    )
    asked = await approvals.open(
        question,
        key=f"{header.id}/{name}",
        timeout_s=step.approval.timeout_s,
        webhook=step.approval.webhook or os.environ.get(step.approval.webhook_env, ""),
    )
    return ApprovalAsked(at=time.time(), step=name, approval_id=asked.id, message=asked.message, until=asked.until)


async def decided(approvals: Approvals, step: str, approval_id: str) -> ApprovalDecided:
    """Wait for the answer, or for the end of its time."""
    while True:
        try:
            found = await approvals.decided(approval_id, LONGEST_WAIT_S)
        except ApprovalNotFound:
            return ApprovalDecided(
                at=time.time(), step=step, approval_id=approval_id, outcome="reject", note="the question is gone"
            )
        if found.decided:
            return _said(step, found)


async def has_answer(approvals: Approvals, asked: Sequence[ApprovalAsked]) -> bool:
    """Whether any of these questions needs no more waiting."""
    now = time.time()
    for each in asked:
        found = await approvals.find(each.approval_id)
        if found is None or found.decided or found.until <= now:
            return True
    return False


def _said(step: str, found: Approval) -> ApprovalDecided:
    return ApprovalDecided(
        at=found.decided_at or time.time(),
        step=step,
        approval_id=found.id,
        outcome={Verdict.APPROVE: "approve", Verdict.SKIP: "skip"}.get(found.verdict, "reject"),  # type: ignore[arg-type]  # of these three alone
        by=found.reviewer if not found.timed_out else "",
        note=found.comment,
    )
