"""The checker itself: silent when all is well, and outspoken about every single thing that is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from queue_backends import CancelOutcome
from tests.faults.brokers.broker import ASYNCHRONOUS, CONFIRMED
from tests.faults.checker import check
from tests.faults.diaries import Effect, Injected
from tests.faults.evidence import Letter
from tests.faults.made_up import KEY, QUEUE, START, TASK, WORKER, Scene, all_is_well, call, numbered, record
from tests.faults.schedule import FaultKind
from tests.faults.worker_slot import Death

Break = Callable[[Scene], dict[str, Any] | None]


def test_nothing_is_found_when_all_is_well() -> None:
    """Two turns, one tool call, one result: no finding, and the figures count what there is."""
    verdict = check(all_is_well().evidence())
    assert not verdict.findings
    figures = verdict.figures
    assert (figures["accepted"], figures["results"], figures["succeeded"]) == (1, 1, 1)
    assert (figures["model calls"], figures["tool effects"], figures["chunks"]) == (2, 1, 6)
    assert figures["streams watched live"] == 1


def _no_result(scene: Scene) -> None:
    scene.results.clear()
    scene.streams.clear()
    scene.views.clear()


def _two_tasks(scene: Scene) -> None:
    scene.submission.ids.append("1700000000001-0")


def _other_output(scene: Scene) -> None:
    scene.results[TASK]["result"] += "."


def _failed(scene: Scene) -> None:
    scene.results[TASK]["error"] = "worker lost"


def _cancelled_and_ran(scene: Scene) -> None:
    scene.submission.cancel_sent, scene.submission.cancel = True, CancelOutcome.CANCELLED


def _gap(scene: Scene) -> None:
    del scene.streams[TASK][1]


def _skipped_number(scene: Scene) -> None:
    last = scene.streams[TASK][-1]
    scene.streams[TASK][-1] = {**last, "seq": 6}


def _two_final_chunks(scene: Scene) -> None:
    chunks = scene.streams[TASK]
    _rewrite(scene, [*chunks, chunks[-1]])


def _no_final_chunk(scene: Scene) -> None:
    scene.streams[TASK].pop()


def _text_lost(scene: Scene) -> None:
    _rewrite(scene, [chunk for chunk in scene.streams[TASK] if chunk["seq"] != 1])


def _text_twice(scene: Scene) -> None:
    chunks = scene.streams[TASK]
    _rewrite(scene, [*chunks[:2], *chunks[1:]])


def _tool_shown_twice(scene: Scene) -> None:
    chunks = scene.streams[TASK]
    _rewrite(scene, [*chunks[:4], chunks[3], *chunks[4:]])


def _turn_shown_again(scene: Scene) -> None:
    chunks = scene.streams[TASK]
    again = [{**chunk, "attempt": 10} for chunk in chunks]
    _rewrite(scene, [*chunks[:5], *again])


def _attempt_back(scene: Scene) -> None:
    chunks = scene.streams[TASK]
    _rewrite(scene, [{**chunks[0], "attempt": 1}, *chunks])


def _rewrite(scene: Scene, chunks: list[dict[str, Any]]) -> None:
    scene.streams[TASK] = numbered(*chunks)


def _consumer_missed_one(scene: Scene) -> None:
    del scene.views[TASK].chunks[2]


def _consumer_saw_one_twice(scene: Scene) -> None:
    scene.views[TASK].chunks.insert(2, scene.views[TASK].chunks[2])


def _consumer_waits(scene: Scene) -> None:
    scene.views[TASK].ended = False


def _unexplained_second_call(scene: Scene) -> None:
    scene.calls.append(call(3, 0, at=START - 5))


def _stored_call_repeated(scene: Scene) -> None:
    scene.calls.append(call(3, 0, at=START - 5))
    scene.ledger[f"{TASK}:0:10"] = record(0, 3, attempt=10)


def _asked_again_after_storing(scene: Scene) -> None:
    scene.calls.append(call(3, 0, ending="left", at=START + 20))
    scene.ledger[f"{TASK}:0:10"] = record(0, 3, attempt=10, outcome="cancelled")


def _no_record(scene: Scene) -> None:
    del scene.ledger[f"{TASK}:0:0"]


def _cut_call_without_record(scene: Scene) -> None:
    scene.calls.append(call(3, 0, ending="cut", at=START - 5))


def _record_twice(scene: Scene) -> None:
    scene.ledger[f"{TASK}:0:1"] = record(0, 1, attempt=1)


def _record_of_no_call(scene: Scene) -> None:
    scene.ledger[f"{TASK}:5:0"] = record(5, 9)


def _past_changed(scene: Scene) -> None:
    second = scene.calls[1]
    scene.calls.append(replace(second, start=replace(second.start, no=3, lineage=(7,))))


def _mangled(scene: Scene) -> None:
    scene.calls[1] = replace(scene.calls[1], start=replace(scene.calls[1].start, mangled="turn 0 is empty"))


def _counter_too_high(scene: Scene) -> None:
    scene.counters["usage:model:openai/fake-1"]["calls"] += 1


def _counter_of_nothing(scene: Scene) -> None:
    scene.counters["usage:tenant:nobody"] = {"calls": 1}


def _result_costs_nothing(scene: Scene) -> None:
    scene.results[TASK]["input_tokens"] = 0


def _effect_twice(scene: Scene) -> None:
    scene.effects.append(scene.effects[0])


def _effect_missing(scene: Scene) -> None:
    scene.effects.clear()


def _tool_failed(scene: Scene) -> None:
    start = replace(scene.calls[1].start, odd=((0, 0, "request failed"),))
    scene.calls[1] = replace(scene.calls[1], start=start)


def _key_without_end(scene: Scene) -> None:
    scene.lifetimes[f"{QUEUE}:chunks:{TASK}"] = None


BREAKS: list[tuple[Break, str]] = [
    (_no_result, "lost task"),
    (_two_tasks, "duplicated task"),
    (_other_output, "wrong result"),
    (_failed, "task failed"),
    (_cancelled_and_ran, "cancelled task went on"),
    (lambda scene: {"announced": {TASK: 2}}, "duplicated result"),
    (lambda scene: {"letters": [Letter(TASK, "poison")]}, "dead letters"),
    (lambda scene: {"letters": [Letter("1-0", "who is it?")]}, "dead letters"),
    (lambda scene: {"left_over": {"entries in q": 1}}, "left over"),
    (lambda scene: {"told_otherwise": ["counters usage:index: is 3, told was 2"]}, "told otherwise"),
    (lambda scene: {"deaths": [Death(START, True, WORKER, "ended by itself", 1)]}, "worker ended"),
    (lambda scene: {"deaths": [Death(START, True, WORKER, "was told to end", -15)]}, "worker ended"),
    (lambda scene: {"alarms": ["w0.1.log: Traceback"]}, "alarm in a log"),
    (_gap, "chunk sequence"),
    (_skipped_number, "chunk sequence"),
    (_two_final_chunks, "chunk sequence"),
    (_no_final_chunk, "chunk sequence"),
    (_text_lost, "turn not whole"),
    (_text_twice, "turn not whole"),
    (_tool_shown_twice, "turn not whole"),
    (_turn_shown_again, "finished turn shown again"),
    (_attempt_back, "attempt went back"),
    (lambda scene: {"lists": {"q:list:k1": ["text"]}}, "ark list"),
    (lambda scene: {"lists": {"q:list:k1": ["text", "__EOF__", "__EOF__"]}}, "ark list"),
    (_consumer_missed_one, "consumer"),
    (_consumer_saw_one_twice, "consumer"),
    (_consumer_waits, "consumer"),
    (_unexplained_second_call, "paid and not stored"),
    (_stored_call_repeated, "paid twice"),
    (_asked_again_after_storing, "stored turn asked again"),
    (_no_record, "paid and not stored"),
    (_cut_call_without_record, "call not in the ledger"),
    (_record_twice, "ledger"),
    (_record_of_no_call, "ledger"),
    (_past_changed, "conversation"),
    (_mangled, "conversation"),
    (_counter_too_high, "usage totals"),
    (_counter_of_nothing, "usage totals"),
    (_result_costs_nothing, "usage of a result"),
    (_effect_twice, "tool effect twice"),
    (_effect_missing, "tool effect missing"),
    (_tool_failed, "tool outcome"),
    (_key_without_end, "key without expiry"),
]


@pytest.mark.parametrize(
    ("change", "rule"), BREAKS, ids=[f"{rule}: {change.__name__.strip('_')}" for change, rule in BREAKS]
)
def test_each_broken_promise_is_found(change: Break, rule: str) -> None:
    """One thing is wrong with the evidence, and the rule that covers it says so."""
    scene = all_is_well()
    others = change(scene) or {}
    announced = others.pop("announced", None)
    evidence = scene.evidence(**others)
    if announced:
        evidence.announced = announced
    assert rule in check(evidence).rules()


def test_a_deadline_may_end_a_task_that_has_one_and_no_other() -> None:
    """Its error says so, and its letter lies with the dead; a task without a deadline has no such excuse."""
    scene = all_is_well()
    scene.results[TASK]["error"] = "the task's deadline has passed"
    _rewrite(scene, [*scene.streams[TASK][:-1], {"type": "ERROR", "is_final": True}])
    scene.views.clear()
    letters = [Letter(TASK, "the task's deadline has passed")]
    assert "task failed" in check(scene.evidence(letters=letters)).rules()
    scene.submission.errand = replace(scene.submission.errand, deadline_s=1.0)
    verdict = check(scene.evidence(letters=letters))
    assert not verdict.findings
    assert verdict.figures["ended by their deadline"] == 1


KILLED = Injected(at=START - 4.85, until=START - 4.5, kind=FaultKind.KILL.value, target="w1.1")


def test_a_killed_worker_explains_the_call_that_it_could_not_store() -> None:
    """Its last byte was sent, its worker died at that moment: made again, counted apart, and not held against us."""
    scene = all_is_well()
    scene.calls.append(call(3, 0, at=START - 5, worker="w1.1"))
    verdict = check(scene.evidence(faults=[KILLED]))
    assert not verdict.findings
    assert verdict.figures["answered in full, not stored: worker killed (kill -9)"] == 1
    assert verdict.figures["calls without a record: worker killed (kill -9)"] == 1


def test_a_mark_of_a_lost_call_is_its_record() -> None:
    """Whoever takes over notes that a call may have been under way: then it is not missing from the ledger."""
    scene = all_is_well()
    scene.calls.append(call(3, 0, ending="left", at=START - 5, worker="w1.1"))
    scene.ledger[f"{TASK}:0:10"] = record(0, 3, attempt=10, outcome="lost")
    for name in ("usage:day:2023-11-14", "usage:model:openai/fake-1"):
        scene.counters[name] |= {"calls": 3, "unpriced_calls": 3}
        scene.counters["usage:index"][name] = 3
    verdict = check(scene.evidence(faults=[KILLED]))
    assert not verdict.findings
    assert verdict.figures["calls marked as lost"] == 1


@pytest.mark.parametrize(
    "fault",
    [
        replace(KILLED, target="w2.1"),
        replace(KILLED, at=START - 2, until=START - 1.5),
        replace(KILLED, at=START - 9, until=START - 8.5),
        replace(KILLED, kind=FaultKind.CUT.value),
        replace(KILLED, kind=FaultKind.BROKER_CRASH.value, target="broker", until=START - 4.7),
    ],
    ids=["another worker", "too late", "too early", "a fault that ends no run", "an outage shorter than a lease"],
)
def test_a_fault_that_cannot_be_the_reason_explains_nothing(fault: Injected) -> None:
    """An alibi has to fit in person, time and kind."""
    scene = all_is_well()
    scene.calls.append(call(3, 0, at=START - 5, worker="w1.1"))
    assert "paid and not stored" in check(scene.evidence(faults=[fault])).rules()


def test_an_interrupted_tool_call_that_the_model_was_told_of_is_no_defect() -> None:
    """It may have taken effect or not; what counts is that the model knows, and that it is not made again."""
    scene = all_is_well()
    scene.effects.clear()
    start = replace(scene.calls[1].start, odd=((0, 0, "interrupted: whether it took effect is not known"),))
    scene.calls[1] = replace(scene.calls[1], start=start)
    verdict = check(scene.evidence())
    assert not verdict.findings
    assert verdict.figures["once-only calls reported as interrupted"] == 1


def test_an_idempotent_tool_may_take_effect_twice() -> None:
    """It is counted, and no finding."""
    scene = all_is_well()
    scene.effects += [Effect(at=START, tool="look", key=KEY, step="9.0")] * 2
    verdict = check(scene.evidence())
    assert not verdict.findings
    assert verdict.figures["effects of idempotent tools repeated"] == 1


def test_a_worker_that_finds_no_broker_when_it_starts_may_end() -> None:
    """Exit code 3, before it was up; once it is, it waits."""
    death = Death(START, False, WORKER, "ended by itself", 3)
    assert not check(all_is_well().evidence(deaths=[death])).findings
    assert "worker ended" in check(all_is_well().evidence(deaths=[replace(death, was_up=True)])).rules()


FAILOVER = Injected(at=START + 1.2, until=START + 3, kind=FaultKind.FAILOVER.value, target="broker")


def test_a_failover_may_take_back_what_was_just_written_where_replication_is_asynchronous() -> None:
    """The task that was under way is lost: it counts as lost, and is a finding unless the engine may lose it."""
    scene = all_is_well()
    _no_result(scene)
    assert "lost task" in check(scene.evidence(faults=[FAILOVER])).rules()
    assert "lost task" in check(scene.evidence(faults=[FAILOVER], takes_back=CONFIRMED)).rules()
    verdict = check(scene.evidence(faults=[FAILOVER], takes_back=ASYNCHRONOUS))
    assert "lost task" not in verdict.rules()
    assert (verdict.figures["lost"], verdict.figures["taken back by a failover: lost task"]) == (1, 1)


@pytest.mark.parametrize(
    "fault",
    [replace(FAILOVER, at=START + 9, until=START + 10), replace(FAILOVER, kind=FaultKind.BROKER_CUT.value)],
    ids=["long after", "no failover"],
)
def test_nothing_else_takes_anything_back(fault: Injected) -> None:
    """A task whose last write was long ago has reached the replica, and only a failover exchanges the primary."""
    scene = all_is_well()
    _no_result(scene)
    assert "lost task" in check(scene.evidence(faults=[fault], takes_back=ASYNCHRONOUS)).rules()
