"""What a soak can be repeated from, and how it is written down."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec.structs import replace

from tests.faults.__main__ import mix_of
from tests.faults.book import BEGIN, END, TABLE_BEGIN, TABLE_END, write, write_row
from tests.faults.checker import check
from tests.faults.diaries import Injected
from tests.faults.made_up import KEY, START, TASK, WORKER, all_is_well
from tests.faults.mixture import Way, draw_errand
from tests.faults.report import as_json, render
from tests.faults.schedule import BROKER_RESTARTS, FAILOVERS, FIRST_WORK_S, WORKER_FAULTS, FaultKind, Schedule, draw
from tests.faults.soak import Options, Outcome

MIX = mix_of(kills=40, restarts=10)


def _schedule(seed: int) -> Schedule:
    return draw(seed, MIX, duration_s=100, slots=4, lease_s=2)


def test_same_seed_draws_the_same_schedule() -> None:
    """All of it: times, kinds, targets, durations; another seed draws another one."""
    assert _schedule(5) == _schedule(5)
    assert _schedule(5) != _schedule(6)


def test_schedule_has_what_was_ordered_within_its_time() -> None:
    """Each kind as often as the mix says, restarts of the broker in all their forms too; a little later at most."""
    faults = _schedule(5).faults
    for kind in FaultKind:
        assert sum(fault.kind is kind for fault in faults) == MIX[kind]
    assert sum(MIX[kind] for kind in BROKER_RESTARTS - FAILOVERS) == 10
    assert all(0 <= fault.at_s <= 120 for fault in faults)
    assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)


def test_a_worker_is_left_alone_between_two_faults() -> None:
    """Killing one that has only just started would prove nothing."""
    free_at: dict[int, float] = {}
    for fault in _schedule(5).faults:
        if fault.kind in WORKER_FAULTS:
            assert fault.at_s >= free_at.get(fault.slot, 0)
            is_new = fault.kind in (FaultKind.KILL, FaultKind.DRAIN)
            free_at[fault.slot] = fault.at_s + fault.seconds + (FIRST_WORK_S if is_new else 0)


def test_same_seed_draws_the_same_tasks_of_every_kind() -> None:
    """A workload can be repeated, and holds everything that is to be attacked."""
    errands = [draw_errand(3, number) for number in range(400)]
    assert errands == [draw_errand(3, number) for number in range(400)]
    assert {errand.way for errand in errands} == set(Way)
    assert any(errand.plan.fails for errand in errands)
    assert any(errand.cancel_after_s is not None for errand in errands)
    assert any(errand.delay_s for errand in errands)
    assert any(errand.submits > 1 for errand in errands)
    assert len({errand.plan.key for errand in errands}) == len(errands)


def _outcome(*, is_lost: bool = False) -> Outcome:
    scene = all_is_well()
    if is_lost:
        scene.results.clear()
    fault = Injected(at=START + 0.05, until=START + 0.5, kind=FaultKind.KILL.value, target=WORKER)
    evidence = scene.evidence(faults=[fault, replace(fault, target="w9.9")])
    verdict = check(evidence)
    return Outcome(
        options=Options(seed=5, tasks=1, duration_s=100, mix=MIX, command="python -m tests.faults --seed 5"),
        schedule=_schedule(5),
        evidence=evidence,
        findings=verdict.findings,
        figures=dict(verdict.figures),
        harmed=dict(verdict.harmed),
        took_s=120.0,
    )


def test_table_says_how_often_a_fault_came_and_what_became_of_the_tasks_it_met() -> None:
    """Two kills, one of which met the task; nothing lost. And when it is lost, that shows in its row."""
    assert f"| {FaultKind.KILL.value} | 2 | 1 | 0 | 0 | 0 | 0 |" in render(_outcome())
    assert f"| {FaultKind.KILL.value} | 2 | 1 | 1 | 0 | 0 | 0 |" in render(_outcome(is_lost=True))


def test_a_failed_run_tells_how_to_do_it_again() -> None:
    """Command, seed, schedule, and what was wrong."""
    text = str(_outcome(is_lost=True))
    assert "python -m tests.faults --seed 5" in text
    assert f"lost task: {TASK}: {KEY}" in text
    assert str(_schedule(5)) in text


def test_only_what_is_between_the_marks_is_replaced(tmp_path: Path) -> None:
    """The rest of the document stays; a document without marks gets them at its end."""
    path = tmp_path / "reliability.md"
    path.write_text(f"# Reliability\n\n{BEGIN}\nold\n{END}\n\nThe rest.\n")
    write(path, "new")
    assert path.read_text() == f"# Reliability\n\n{BEGIN}\n\nnew\n\n{END}\n\nThe rest.\n"
    other = tmp_path / "other.md"
    other.write_text("# Other\n")
    write(other, "new")
    assert other.read_text() == f"# Other\n\n{BEGIN}\n\nnew\n\n{END}\n"


def test_each_engine_has_one_line_in_the_table(tmp_path: Path) -> None:
    """A new run exchanges its engine's line and leaves the others; they stand in the order of the engines."""
    path = tmp_path / "reliability.md"
    path.write_text(f"# Reliability\n\n{TABLE_BEGIN}\n| `redis`: old | 7 |\n{TABLE_END}\n\nThe rest.\n")
    write_row(path, _outcome(is_lost=True))
    write_row(path, _outcome())
    lines = [line for line in path.read_text().splitlines() if line.startswith("| `")]
    assert lines[1:] == ["| `redis`: old | 7 |"]
    assert lines[0].startswith(
        "| `valkey`: one Valkey with `appendonly yes` and `appendfsync always` | 1 | 2.0 | 2 | 0 "
    )
    assert lines[0].endswith("| 0 | 0 | 0 | 0 | `--seed 5` |")
    assert path.read_text().endswith(f"{TABLE_END}\n\nThe rest.\n")


def test_figures_are_there_for_programs_too() -> None:
    """JSON with seed, figures and findings."""
    document = msgspec.json.decode(as_json(_outcome()))
    assert (document["seed"], document["figures"]["accepted"], document["findings"]) == (5, 1, [])
