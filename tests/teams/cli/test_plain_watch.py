"""`--watch` on a pipe: ark's and kubeswarm's lines, exactly."""

from __future__ import annotations

from tests.teams.cli.hand_made import BEGAN_AT, Paper, busy, done, plan, state, step
from worker.cli.plain_watch import PlainWatch
from worker.teams.run_state import Phase, RunState, StepState

PLAN = plan(step("research"), step("summarize", "research"))


def lines(*states: RunState, word: str = "pipeline", now_s: float = 0.0) -> list[str]:
    """What the watch writes for these states."""
    paper = Paper()
    watch = PlainWatch(paper, plan(step("research"), word=word).team, clock=lambda: BEGAN_AT + now_s)
    for each in states:
        watch.show(each)
    return paper.take().splitlines()


def test_a_step_begins_and_ends_as_ark_writes_it() -> None:
    """Name in twenty columns, tokens, seconds, and the output's beginning below."""
    ended = done("research", at_s=0, took_s=2.31, tokens=1842, output="Whales sing.")
    assert lines(state(StepState(name="research")), state(busy("research")), state(ended)) == [
        "  research             [running]",
        "  research             [done]    1842 tokens  2.3s",
        "    └─ Whales sing.",
    ]


def test_a_step_whose_beginning_was_not_seen_has_both_lines() -> None:
    """Whoever looks late misses no line."""
    ended = done("research", at_s=1, took_s=1)
    assert lines(state(ended)) == [
        "  research             [running]",
        "  research             [done]    0 tokens  1.0s",
    ]


def test_skipped_failed_and_cancelled_steps() -> None:
    """As ark has them; a step that never began has no line that says it did."""
    skipped = StepState(name="a", phase=Phase.SKIPPED, message="skipped: if condition evaluated to false")
    failed = StepState(name="b", phase=Phase.FAILED, iteration=1, tries=1, message="the model\nsays no")
    cancelled = StepState(name="c", phase=Phase.CANCELLED, iteration=1, tries=1)
    assert lines(state(busy("b"), busy("c")), state(skipped, failed, cancelled)) == [
        "  b                    [running]",
        "  c                    [running]",
        "  a                    [skipped]",
        "  b                    [failed]  the model says no",
        "  c                    [cancelled]",
    ]


def test_costs_and_validation_are_the_later_kinds() -> None:
    """kubeswarm's lines have them, ark's flows do not know costs."""
    ended = done("research", at_s=0, took_s=1, tokens=5, cost_usd=0.0123, validated=True)
    [_, pipeline] = lines(state(ended))
    [_, flow] = lines(state(ended), word="flow")
    assert pipeline == "  research             [done]    5 tokens  $0.0123  1.0s  ✓ validated"
    assert flow == "  research             [done]    5 tokens  1.0s  ✓ validated"


def test_a_retry_says_why() -> None:
    """The try that failed, and what was wrong with it."""
    again = busy("research", tries=2, message="[retry 1] validation failed: no sources")
    assert lines(state(busy("research")), state(again))[1:] == [
        "  research             [retry 1] validation failed: no sources"
    ]


def test_each_round_of_a_loop_has_its_own_figures() -> None:
    """Tokens of the second round are those that it used, not the sum."""
    between = StepState(
        name="research", phase=Phase.PENDING, iteration=1, tries=1, started_at=BEGAN_AT,
        usage=done("x", at_s=0, took_s=0, tokens=100).usage, output="one",
    )  # fmt: skip
    second = done("research", at_s=0, took_s=9, tokens=150, iteration=2, output="two")
    written = lines(
        state(busy("research")), state(between), state(busy("research", iteration=2)), state(second), now_s=4
    )
    assert written == [
        "  research             [running]",
        "  research             [done]    100 tokens  4.0s",
        "    └─ one",
        "  research             [running]",
        "  research             [done]    50 tokens  5.0s",
        "    └─ two",
    ]


def test_a_preview_cannot_pass_for_a_line_of_ours_nor_steer_the_terminal() -> None:
    """Line ends become spaces, controls vanish, and no character is cut in half."""
    evil = done("research", at_s=0, took_s=1, output="a\n  summarize            [done]\x1b[2J\x07\u202eb")
    assert lines(state(evil))[-1] == "    └─ a summarize [done]b"
    long = done("research", at_s=0, took_s=1, output="a" + "é" * 61)
    assert lines(state(long))[-1] == "    └─ a" + "é" * 59 + "..."


def test_a_step_that_waits_says_how_to_answer() -> None:
    """The command stands there."""
    waits = StepState(name="research", phase=Phase.WAITING, approval_id="ab12")
    assert lines(state(waits), state(waits)) == ["  research             [waiting] for approval: shoal approve ab12"]
