"""The live tree: what it says, and that it always fits."""

from __future__ import annotations

from typing import Any

import pytest

from queue_backends import Chunk, ChunkType
from tests.teams.cli.hand_made import BEGAN_AT, busy, child, done, plan, state, step, tokens
from worker.cli.live_area import Line, cells, fit
from worker.cli.live_tree import Nested, tree
from worker.cli.stream_tails import Tail
from worker.teams.run_state import Phase, RunState, StepState

PLAN = plan(step("a"), step("b", "a", rounds=3), step("c", "a"), step("d", "b", "c"))
STATE = state(
    done("a", at_s=0, took_s=2.3, tokens=1842, cost_usd=0.0123, role="a"),
    busy("b", at_s=2.3, iteration=2, role="writer", task_id="t2"),
    busy("c", at_s=2.3, tries=2, message="[retry 1] validation failed: too short", role="c", task_id="t3"),
    StepState(name="d", role="d"),
    usage=tokens(1842),
    cost_usd=0.0123,
)


def text(lines: list[Line]) -> list[str]:
    """Without styles."""
    return ["".join(part for part, _ in line) for line in lines]


def said(words: str, *more: Chunk) -> Tail:
    """What a task has said last."""
    tail = Tail()
    for chunk in (Chunk(task_id="t", seq=0, type=ChunkType.CONTENT, content=words), *more):
        tail.add(chunk)
    return tail


def drawn(run: RunState = STATE, *, width: int = 80, height: int = 30, **more: Any) -> list[str]:
    """The picture of a run, twelve seconds after it began."""
    return text(tree(PLAN, run, width=width, height=height, now=BEGAN_AT + 12.3, **more))


def test_every_step_says_what_it_is_at() -> None:
    """State, round, role, model, tokens, cost, seconds; what waits says for whom; and the totals."""
    lines = drawn()
    assert lines[0] == "t  Running  run t-1"
    assert lines[1].split() == ["✓", "a", "gpt-4o", "1", "842", "$0.0123", "2.3", "s"]
    assert lines[2].split()[1:] == ["b", "2/3", "writer", "10", "s"]
    assert lines[3].split()[1:] == ["c", "try", "2", "gpt-4o", "10", "s"]
    assert lines[4] == "    [retry 1] validation failed: too short"
    assert lines[5].split() == ["·", "d", "after", "b,", "c"]
    assert lines[6] == "  1 of 4 steps · 1 842 tokens · $0.0123 · 12 s"


def test_running_steps_show_the_last_that_they_said_several_at_once() -> None:
    """Each below its own step."""
    lines = drawn(tails={"t2": said("the sea at dusk"), "t3": said("claim 3\nholds")})
    assert "    │ the sea at dusk" in lines
    assert lines.index("    │ the sea at dusk") < lines.index("    │ claim 3") < lines.index("    │ holds")


def test_a_turn_that_starts_over_takes_its_words_back() -> None:
    """The rule of clients: a higher attempt supersedes what its turn had shown."""
    again = Chunk(task_id="t", seq=1, type=ChunkType.CONTENT, content="new words", attempt=1)
    assert "    │ new words" in drawn(tails={"t2": said("old words", again)})
    assert not any("old words" in line for line in drawn(tails={"t2": said("old words", again)}))


def test_delegated_tasks_stand_below_their_step_and_their_parent() -> None:
    """However deep."""
    children = (
        child("c1", "checker", parent="t2", step="b", prompt="Check it"),
        child("c2", "librarian", parent="c1", step="b", prompt="Find it", phase=Phase.SUCCEEDED),
    )
    lines = drawn(state(*STATE.steps, children=children))
    [first] = [line for line in lines if "checker" in line]
    [second] = [line for line in lines if "librarian" in line]
    assert lines.index(first) == lines.index(second) - 1
    assert first.startswith("  ")
    assert second.startswith("    ✓")


def test_a_run_of_another_team_stands_below_the_step_that_it_does() -> None:
    """With its own steps."""
    inner = Nested(plan(step("inner")), state(busy("inner")))
    lines = drawn(state(busy("a", run_id="r2"), *STATE.steps[1:]), nested={"r2": inner})
    assert lines[2].split()[1] == "inner"
    assert lines[2].startswith("  ")


def test_a_question_says_how_it_is_answered_and_a_failure_why() -> None:
    """Also where there is little room."""
    asked = StepState(name="a", phase=Phase.WAITING, approval_id="ab12", started_at=BEGAN_AT)
    failed = StepState(name="b", phase=Phase.FAILED, iteration=1, tries=1, message="the model says no")
    lines = drawn(state(asked, failed), height=8)
    assert "    waits for approval: shoal approve ab12" in lines
    assert "    the model says no" in lines


def test_a_step_whose_tool_waits_for_a_person_does_not_look_as_if_it_ran() -> None:
    """Nor does a delegated task; what has ended has ended."""
    children = (child("c1", "checker", parent="t2", step="b"),)
    lines = drawn(state(*STATE.steps, children=children), asking={"t2", "c1", "t1"})
    marks = {line.split()[1]: line.split()[0] for line in lines[1:5]}
    assert marks == {"a": "✓", "b": "?", "checker": "?", "c": marks["c"]}
    assert marks["c"] not in "?✓"


@pytest.mark.parametrize("width", [8, 20, 44, 60, 80, 250])
@pytest.mark.parametrize("height", [3, 6, 10, 24])
def test_it_fits_every_terminal(width: int, height: int) -> None:
    """A line less than the terminal has, for the cursor, and cut where needed."""
    many = plan(*(step(f"步骤-step-{n}") for n in range(40)))
    steps = [busy(f"步骤-step-{n}", task_id=f"t{n}") if n % 2 else StepState(name=f"步骤-step-{n}") for n in range(40)]
    tails = {f"t{n}": said("鲸鱼是海洋中最大的动物 " * 20) for n in range(40)}
    lines = tree(many, state(*steps), width=width, height=height, now=BEGAN_AT, tails=tails)
    assert len(lines) <= max(height - 1, 3)
    if height > 3:
        assert any("…" in line for line in text(lines))
    assert all(cells(fit(line, width)) <= width for line in lines)


def test_what_runs_is_shown_before_what_has_ended_or_waits() -> None:
    """And the others are counted."""
    many = plan(*(step(f"s{n}") for n in range(30)))
    steps = [done(f"s{n}", at_s=0, took_s=1) if n < 20 else StepState(name=f"s{n}") for n in range(29)]
    lines = text(tree(many, state(*steps, busy("s29")), width=80, height=8, now=BEGAN_AT))
    assert any("s29" in line for line in lines)
    assert lines[-2].startswith("  … 20 ended")
    assert len(lines) == 7


def test_the_final_tree_has_every_step_and_no_words_of_theirs() -> None:
    """It is what stays on the terminal."""
    lines = drawn(height=4, is_final=True, tails={"t2": said("the sea")})
    assert len(lines) == 7
    assert not any("│" in line for line in lines)
