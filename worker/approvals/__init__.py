"""Questions to people, and their answers: of steps, of tools' calls, of plugins."""

from worker.approvals.answers import PREFIX
from worker.approvals.approvals import LONGEST_S, Approvals, approval_id
from worker.approvals.question import Approval, Verdict

__all__ = ["LONGEST_S", "PREFIX", "Approval", "Approvals", "Verdict", "approval_id"]
