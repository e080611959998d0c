"""No tool took effect twice unless it may; what was interrupted was told to the model."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

from tests.faults.checks.findings import Verdict
from tests.faults.evidence import Evidence
from tests.faults.plans import IDEMPOTENT_TOOLS, ONCE_ONLY_TOOLS, step_of, steps_of

INTERRUPTED = re.compile(r"interrupt|unknown", re.IGNORECASE)


def check_effects(evidence: Evidence, verdict: Verdict) -> None:
    """The tools' diaries against the plans, and against what the model was told."""
    effects = Counter((effect.key, effect.step, effect.tool) for effect in evidence.effects)
    verdict.count("tool effects", len(evidence.effects))
    for (key, step, tool), times in effects.items():
        if tool in ONCE_ONLY_TOOLS and times > 1:
            verdict.broken("tool effect twice", f"{key} step {step}", f"{tool} took effect {times} times")
            verdict.harm("effect repeated", key)
        elif times > 1:
            verdict.count("effects of idempotent tools repeated", times - 1)
    told = _told(evidence, verdict)
    for submission in evidence.submissions:
        result = evidence.told.results.get(submission.task_id) if submission.ids else None
        if result is None or result.get("error"):
            continue
        plan = submission.errand.plan
        for step, use in steps_of(plan):
            outcome = told[plan.key].get(step, "")
            if effects[plan.key, step, use.tool] == 0 and not outcome:
                text = f"the model was told that {use.tool} is done, and it never took effect"
                verdict.broken("tool effect missing", f"{plan.key} step {step}", text)


def _told(evidence: Evidence, verdict: Verdict) -> dict[str, dict[str, str]]:
    """What models were told of steps that did not end well: key -> step -> text."""
    tools = {(s.errand.plan.key, step): use.tool for s in evidence.submissions for step, use in steps_of(s.errand.plan)}
    told: dict[str, dict[str, str]] = defaultdict(dict)
    for call in evidence.calls:
        for turn, index, text in call.start.odd:
            step = step_of(turn, index)
            if step in told[call.start.key]:
                continue
            told[call.start.key][step] = text
            tool = tools.get((call.start.key, step), "")
            if tool in IDEMPOTENT_TOOLS or not INTERRUPTED.search(text):
                verdict.broken("tool outcome", f"{call.start.key} step {step}", f"{tool}: the model was told {text!r}")
            verdict.count("once-only calls reported as interrupted")
    return told
