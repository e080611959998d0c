"""Every model call that the provider served is in the ledger exactly once, and none that is stored is made again."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from tests.faults.checks.explanations import REACH_S, Explanations
from tests.faults.checks.findings import Verdict
from tests.faults.diaries import Call
from tests.faults.evidence import Evidence

Record = dict[str, Any]


def check_calls(evidence: Evidence, verdict: Verdict) -> None:
    """The provider's diary against the ledger, in both directions, and the ledger against its counters."""
    keys = {s.task_id: s.errand.plan.key for s in evidence.submissions if s.ids}
    explanations = Explanations(evidence.faults, evidence.lease_s)
    records: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in evidence.told.ledger.values():
        if record["task_id"] not in keys:
            verdict.count("ledger records of tasks with an unknown outcome")
            continue
        turn = int(record["id"].split(":")[1])
        records[keys[record["task_id"]], turn].append(record)
    calls: dict[tuple[str, int], list[Call]] = defaultdict(list)
    for call in evidence.calls:
        calls[call.start.key, call.start.turn].append(call)
    known = set(keys.values())
    for (key, turn), made in calls.items():
        verdict.count("model calls", len(made))
        if key in known:
            _check_turn(f"{key} turn {turn}", key, made, records.pop((key, turn), []), explanations, verdict)
    for (key, turn), rest in records.items():
        _check_unstored(f"{key} turn {turn}", [], rest, explanations, verdict)
    _check_conversations(evidence, verdict)
    _check_counters(evidence, verdict)
    _check_usage_of_results(evidence, verdict)


def _check_turn(
    subject: str,
    key: str,
    made: Sequence[Call],
    records: list[Record],
    explanations: Explanations,
    verdict: Verdict,
) -> None:
    complete = [call for call in made if call.is_complete]
    verdict.count("model calls answered in full", len(complete))
    stored = [call for call in complete if _records_of(call, records)]
    for call in stored:
        if (times := len(_records_of(call, records))) > 1:
            verdict.broken("ledger", subject, f"call {call.start.no} is in it {times} times")
    if len(stored) > 1:
        numbers = [call.start.no for call in stored]
        verdict.broken("paid twice", subject, f"calls {numbers} were all answered and all stored")
        verdict.harm("paid twice", key, len(stored) - 1)
    for call in stored:
        _check_nothing_after(subject, call, made, explanations, verdict)
    spare = [record for record in records if not any(record in _records_of(call, records) for call in stored)]
    _check_unstored(subject, [call for call in made if call not in stored], spare, explanations, verdict)


def _check_nothing_after(
    subject: str, stored: Call, made: Sequence[Call], explanations: Explanations, verdict: Verdict
) -> None:
    """Once a turn is stored nobody asks for it again, but for a worker that has yet to learn that its lease is lost."""
    for call in made:
        if call.start.at > stored.ended_at + REACH_S:
            if explanations.of(call.start.worker, call.start.at, call.ended_at):
                verdict.count("calls in vain, made before a lost lease was noticed")
            else:
                text = f"call {stored.start.no} was stored, then {call.start.worker} made call {call.start.no}"
                verdict.broken("stored turn asked again", subject, text)


def _records_of(call: Call, records: Sequence[Record]) -> list[Record]:
    """The records of a call that was answered in full: its number is the count of its output tokens."""
    return [
        record
        for record in records
        if record["outcome"] == "completed" and record["usage"].get("output_tokens") == call.start.no
    ]


def _check_unstored(
    subject: str, calls: Sequence[Call], spare: list[Record], explanations: Explanations, verdict: Verdict
) -> None:
    """Calls that were cut, refused or left, and those whose answer never reached the ledger as such.

    `lost` records stand for calls of which nobody knows whether they were made, so there may be more of them.
    """
    spare = sorted(spare, key=lambda record: record["outcome"] == "cancelled")
    lost = sum(record["outcome"] == "lost" for record in spare)
    verdict.count("calls marked as lost", lost)
    unseen = len(spare) - lost - len(calls)
    if unseen > 0 and all(record["outcome"] == "cancelled" for record in spare[-unseen:]):
        verdict.count("calls cancelled before the provider saw them", unseen)
    elif unseen > 0:
        verdict.broken("ledger", subject, f"{len(spare) - lost} records for {len(calls)} calls: {spare[-1]}")
    if invented := [record for record in spare if record["outcome"] == "completed"]:
        verdict.broken("ledger", subject, f"a completed call that the provider did not complete: {invented[0]}")
    reasons = [(explanations.of(call.start.worker, call.start.at, call.ended_at), call) for call in calls if call.begun]
    # Calls that nothing explains have first claim on the records that are there.
    reasons.sort(key=lambda reason: bool(reason[0]))
    for position, (reason, call) in enumerate(reasons):
        if call.is_complete and reason:
            verdict.count(f"answered in full, not stored: {reason}")
        if position < len(spare):
            verdict.count("calls cut or left with a record")
        elif reason:
            verdict.count(f"calls without a record: {reason}")
        else:
            ending = call.end.ending if call.end else "unknown"
            rule = "paid and not stored" if call.is_complete else "call not in the ledger"
            text = f"call {call.start.no} by {call.start.worker} at {call.start.at:.3f} ({ending}): no record"
            verdict.broken(rule, subject, text)
            verdict.count("calls missing from the ledger")


def _check_conversations(evidence: Evidence, verdict: Verdict) -> None:
    """A task's conversation never changes its past: each turn has one answer, and all later calls bring that one."""
    pasts: dict[tuple[str, int], int] = {}
    for call in evidence.calls:
        start = call.start
        if start.mangled:
            verdict.broken("conversation", f"{start.key} call {start.no}", start.mangled)
        for turn, number in enumerate(start.lineage):
            known = pasts.setdefault((start.key, turn), number)
            if known != number:
                text = f"call {start.no} brings the answer of call {number}, an earlier one that of call {known}"
                verdict.broken("conversation", f"{start.key} turn {turn}", text)


def _check_counters(evidence: Evidence, verdict: Verdict) -> None:
    """Totals equal the sum of the records."""
    expected: dict[str, Counter[str]] = defaultdict(Counter)
    for record in evidence.told.ledger.values():
        names = ["day:" + time.strftime("%Y-%m-%d", time.gmtime(record["started_at"]))]
        names.append(f"model:{record['provider']}/{record['model']}")
        names += [f"{kind}:{record[kind]}" for kind in ("agent", "tenant") if record.get(kind)]
        amounts = {"calls": 1, **{name: count for name, count in record["usage"].items() if count}}
        if record.get("cost_usd") is None:
            amounts["unpriced_calls"] = 1
        elif micros := round(record["cost_usd"] * 1e6):
            amounts["cost_microusd"] = micros
        for name in names:
            expected[f"usage:{name}"].update(amounts)
            expected["usage:index"][f"usage:{name}"] += 1
    for name in sorted(expected.keys() | {name for name in evidence.told.counters if name.startswith("usage:")}):
        kept = dict(evidence.told.counters.get(name, {}))
        if kept != dict(expected[name]):
            verdict.broken("usage totals", name, f"are {kept}, the records make {dict(expected[name])}")


def _check_usage_of_results(evidence: Evidence, verdict: Verdict) -> None:
    """A result's usage is that of its task's records."""
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for record in evidence.told.ledger.values():
        for field in ("input_tokens", "output_tokens"):
            sums[record["task_id"]][field] += record["usage"].get(field) or 0
    for task_id, result in evidence.told.results.items():
        for field in ("input_tokens", "output_tokens"):
            if result.get(field, 0) != sums[task_id][field]:
                text = f"{field} is {result.get(field, 0)}, the task's records make {sums[task_id][field]}"
                verdict.broken("usage of a result", task_id, text)
                break
