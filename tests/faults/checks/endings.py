"""Every accepted task has exactly one result, the right one, and nothing is left lying about."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Set
from typing import Any

from queue_backends import RUN_CANCELLED, CancelOutcome
from tests.faults.checks.findings import Verdict
from tests.faults.evidence import Evidence
from tests.faults.mixture import Way
from tests.faults.plans import Plan, speaker_of, text_of
from tests.faults.submissions import Submission
from tests.faults.worker_slot import Death

QUEUE_UNAVAILABLE = 3
"""The exit code of a worker that could not reach the queue when it started."""


def check_endings(evidence: Evidence, verdict: Verdict) -> None:
    """Results, dead letters, and what should be empty."""
    letters = Counter(letter.task_id for letter in evidence.told.letters)
    keys: dict[str, str] = {}
    for submission in evidence.submissions:
        if not submission.ids:
            verdict.count("submitted with an unknown outcome")
            continue
        keys[submission.task_id] = submission.errand.plan.key
        verdict.count("accepted")
        _check_ids(submission, verdict)
        result = evidence.told.results.get(submission.task_id)
        if result is None:
            verdict.broken("lost task", submission.task_id, f"{submission.errand.plan.key} has no result")
            verdict.harm("lost", submission.errand.plan.key)
            continue
        verdict.count("results")
        _check_result(evidence, submission, result, letters[submission.task_id], verdict)
    _check_strangers(evidence, keys.keys(), verdict)
    for task_id, times in evidence.announced.items():
        if times > 1:
            verdict.broken("duplicated result", task_id, f"announced {times} times")
            verdict.harm("duplicated", keys.get(task_id, task_id))
    for what, amount in (*evidence.told.left_over.items(), *evidence.left_over.items()):
        if amount:
            verdict.broken("left over", what, f"{amount}, expected none")
    for contradiction in evidence.told_otherwise:
        verdict.broken("told otherwise", contradiction.partition(":")[0], contradiction)
    for death in evidence.deaths:
        _check_death(death, verdict)
    for alarm in evidence.alarms:
        verdict.broken("alarm in a log", alarm.partition(":")[0], alarm)


def _check_death(death: Death, verdict: Verdict) -> None:
    """A worker ends when it is told to, and with 0. One that finds no broker when it starts says so and ends."""
    if not death.was_up and death.exit_code == QUEUE_UNAVAILABLE:
        verdict.count("workers that found no broker when they started")
    elif not death.was_up and death.exit_code == -signal.SIGTERM:
        verdict.count("workers told to end before they were up")
    else:
        verdict.broken("worker ended", death.worker, f"{death.text}, exit code {death.exit_code}")


def _check_ids(submission: Submission, verdict: Verdict) -> None:
    if len(set(submission.ids)) > 1:
        verdict.broken("duplicated task", submission.task_id, f"one idempotency key, tasks {submission.ids}")
        verdict.harm("duplicated", submission.errand.plan.key)


def _check_result(
    evidence: Evidence, submission: Submission, result: dict[str, Any], letters: int, verdict: Verdict
) -> None:
    task_id, errand, error = submission.task_id, submission.errand, result.get("error", "")
    fails = errand.way is Way.GARBAGE or errand.plan.fails
    if error == RUN_CANCELLED and submission.cancel_sent:
        verdict.count("cancelled")
        expected_letters = 0
    elif submission.cancel is CancelOutcome.CANCELLED:
        verdict.broken("cancelled task went on", task_id, f"result {result}")
        return
    elif errand.deadline_s is not None and "deadline" in error:
        verdict.count("ended by their deadline")
        expected_letters = 1
    elif fails:
        expected_letters = 1
        verdict.count("unreadable" if errand.way is Way.GARBAGE else "refused by the provider")
        if not error:
            verdict.broken("wrong result", task_id, f"planned to fail, and has the result {result}")
    else:
        expected_letters = 0
        _check_output(evidence, submission, result, verdict)
    if letters != expected_letters:
        verdict.broken("dead letters", task_id, f"{letters} instead of {expected_letters}; result {str(result)[:300]}")


def _check_output(evidence: Evidence, submission: Submission, result: dict[str, Any], verdict: Verdict) -> None:
    task_id, plan = submission.task_id, submission.errand.plan
    if error := result.get("error", ""):
        verdict.broken("task failed", task_id, f"{plan.key}: {error}")
        return
    verdict.count("succeeded")
    if problem := _wrong_output(evidence, plan, result["result"]):
        verdict.broken("wrong result", task_id, problem)


def _wrong_output(evidence: Evidence, plan: Plan, output: str) -> str:
    last = len(plan.turns) - 1
    speaker = speaker_of(output)
    if speaker is None or speaker[:2] != (plan.key, last):
        return f"output {output[:100]!r} is not turn {last} of {plan.key}"
    if output != text_of(plan, last, speaker[2]):
        return f"output {output[:100]!r}… ({len(output)} characters) is not what call {speaker[2]} answered"
    return ""


def _check_strangers(evidence: Evidence, known: Set[str], verdict: Verdict) -> None:
    """Results of tasks that the engine does not know: only of submits whose reply got lost."""
    unknown = {submission.errand.plan.key for submission in evidence.submissions if not submission.ids}
    strangers = [task_id for task_id in evidence.told.results if task_id not in known]
    if len(strangers) > len(unknown):
        verdict.broken("result of nobody", strangers[0], f"{len(strangers)} results, {len(unknown)} lost replies")
    for letter in evidence.told.letters:
        if letter.task_id not in evidence.told.results:
            verdict.broken("dead letters", letter.task_id, f"no result beside the letter: {letter.error}")
