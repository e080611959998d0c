"""Every chunk sequence is gapless, ends once, and shows every turn as one answer; consumers saw the same live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from queue_backends import Chunk
from tests.faults.checks.findings import Verdict
from tests.faults.evidence import Evidence
from tests.faults.plans import Plan, call_id, speaker_of, text_of

END_OF_LIST = "__EOF__"

Piece = dict[str, Any]
"""A chunk, as JSON has it."""


def check_streams(evidence: Evidence, verdict: Verdict) -> None:
    """The kept chunks of every task, and what live consumers saw."""
    plans = {s.task_id: s.errand.plan for s in evidence.submissions if s.ids}
    for task_id in evidence.told.results:
        chunks = evidence.told.streams.get(task_id, ())
        verdict.count("chunks", len(chunks))
        if problem := _numbering(task_id, chunks) or _ending(chunks):
            verdict.broken("chunk sequence", task_id, problem)
            continue
        final = chunks[-1]
        succeeded = not evidence.told.results[task_id].get("error", "")
        if succeeded != (final["type"] == "DONE"):
            verdict.broken("chunk sequence", task_id, f"ends with {final}, result {evidence.told.results[task_id]}")
        if task_id in plans:
            _check_turns(task_id, plans[task_id], chunks, verdict, complete=succeeded)
    for task_id in evidence.told.streams.keys() - evidence.told.results.keys():
        verdict.broken("chunk sequence", task_id, "chunks of a task that has no result")
    _check_views(evidence, verdict)
    for name, items in evidence.lists.items():
        verdict.count("ark lists")
        if items.count(END_OF_LIST) != 1 or items[-1] != END_OF_LIST:
            verdict.broken("ark list", name, f"its end is {items[-3:]}, with {items.count(END_OF_LIST)} end marks")


def _numbering(task_id: str, chunks: Sequence[Piece]) -> str:
    for position, chunk in enumerate(chunks):
        if chunk["seq"] != position or chunk["task_id"] != task_id:
            return f"chunk {position} is {str(chunk)[:200]}"
    return "" if chunks else "no chunks at all"


def _ending(chunks: Sequence[Piece]) -> str:
    finals = [position for position, chunk in enumerate(chunks) if chunk.get("is_final")]
    if finals != [len(chunks) - 1]:
        return f"final chunks at {finals} of {len(chunks)}"
    return ""


def _check_turns(task_id: str, plan: Plan, chunks: Sequence[Piece], verdict: Verdict, *, complete: bool) -> None:
    """A consumer that follows the rule ends up with each turn once, each the answer of one call."""
    shown: dict[int, list[Piece]] = {}
    attempts: dict[int, int] = {}
    highest = 0
    for chunk in (chunk for chunk in chunks if not chunk.get("is_final")):
        turn, attempt = chunk.get("turn", 0), chunk.get("attempt", 0)
        if turn < highest:
            verdict.broken("finished turn shown again", task_id, f"turn {turn} after turn {highest}: {chunk}")
            return
        highest = turn
        if attempt < attempts.get(turn, 0):
            verdict.broken("attempt went back", task_id, f"attempt {attempt} after {attempts[turn]}: {chunk}")
            return
        if attempt > attempts.get(turn, attempt):
            shown[turn] = []  # the rule: what was shown of this turn is void
            verdict.count("turns shown again after they broke")
        attempts[turn] = attempt
        shown.setdefault(turn, []).append(chunk)
    for turn, pieces in shown.items():
        is_whole = complete or turn < highest
        if problem := _turn_problem(plan, turn, pieces, is_whole=is_whole):
            verdict.broken("turn not whole", task_id, f"turn {turn} (attempt {attempts[turn]}): {problem}")
    if complete and len(shown) != len(plan.turns):
        verdict.broken("turn not whole", task_id, f"turns {sorted(shown)} of {len(plan.turns)} were shown")


def _turn_problem(plan: Plan, turn: int, chunks: Sequence[Piece], *, is_whole: bool) -> str:
    text = "".join(chunk.get("content", "") for chunk in chunks if chunk["type"] == "CONTENT")
    speaker = speaker_of(text)
    if speaker is None or speaker[:2] != (plan.key, turn):
        return f"text is {text[:100]!r}" if text or is_whole else ""
    expected = text_of(plan, turn, speaker[2])
    if text != expected if is_whole else not expected.startswith(text):
        return f"text is {text!r}, call {speaker[2]} answered {expected!r}"
    ids = [call_id(speaker[2], index) for index in range(len(plan.turns[turn].tools))]
    for kind in ("TOOL_CALL", "TOOL_RESULT"):
        seen = sorted(chunk["metadata"]["id"] for chunk in chunks if chunk["type"] == kind)
        if len(set(seen)) != len(seen) or not set(seen) <= set(ids) or (is_whole and seen != sorted(ids)):
            return f"{kind} of {seen}, expected {ids}"
    return ""


def _check_views(evidence: Evidence, verdict: Verdict) -> None:
    """A live consumer has seen exactly what is kept, in order."""
    for task_id, view in evidence.views.items():
        kept = [msgspec.convert(chunk, Chunk) for chunk in evidence.told.streams.get(task_id, ())]
        if view.problem or not view.ended:
            verdict.broken("consumer", task_id, view.problem or f"still waits after {len(view.chunks)} chunks")
        elif view.chunks != kept:
            seen = [chunk.seq for chunk in view.chunks]
            verdict.broken("consumer", task_id, f"saw {seen} of {len(kept)} kept chunks")
        verdict.count("streams watched live")
