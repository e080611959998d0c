"""Where the parts of a picture stand."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.teams.graph.teams import (
    desk,
    desk_run,
    fan,
    helpdesk,
    helpdesk_run,
    pipeline,
    pipeline_run,
    role,
)
from worker.teams.graph import Graph, layout
from worker.teams.graph.card import facts_of
from worker.teams.graph.layout import MOST_EDGES, in_row
from worker.teams.plan import Step, Team
from worker.teams.run_state import Phase

Wanted = list[tuple[int, list[int]]]


@st.composite
def dags(draw: st.DrawFn) -> Team:
    """Any graph of steps: each may need any of those before it."""
    size = draw(st.integers(0, 24))
    steps = []
    for number in range(size):
        needs = draw(st.lists(st.integers(0, max(0, number - 1)), max_size=4)) if number else []
        condition = draw(st.sampled_from(["", "{{ .x }}"]))
        names = tuple(f"s{each}" for each in needs)
        steps.append(Step(name=f"s{number}", role="r", depends_on=names, condition=condition))
    order = draw(st.permutations(steps))
    return Team(name="any", roles=(role("r"),), steps=tuple(order))


def check_places(graph: Graph) -> None:
    """No card lies on another one, none outside of the picture, and every edge leads down."""
    for one, other in itertools.combinations(graph.nodes, 2):
        is_beside = one.x + one.width <= other.x or other.x + other.width <= one.x
        is_above = one.y + one.height <= other.y or other.y + other.height <= one.y
        assert is_beside or is_above, (one, other)
    for node in graph.nodes:
        assert node.x >= 0
        assert node.y >= 0
        assert node.x + node.width <= graph.width
        assert node.y + node.height <= graph.height
    for edge in graph.edges:
        source, target = graph.node(edge.source), graph.node(edge.target)
        assert source.y + source.height < target.y
        heights = [y for _, y in edge.points]
        assert heights == sorted(heights)
        assert edge.points[0] == (source.middle, source.y + source.height)
        assert edge.points[-1] == (target.middle, target.y)


def check_passages(graph: Graph) -> None:
    """Where an edge leads straight past a row, it goes through no card of it."""
    for edge in graph.edges:
        ends = {edge.source, edge.target}
        others = [node for node in graph.nodes if node.id not in ends]
        for (x, top), (_, bottom) in zip(edge.points[2:-2:2], edge.points[3:-2:2], strict=True):
            for node in others:
                is_level = node.y < bottom and top < node.y + node.height
                assert not (is_level and node.x <= x <= node.x + node.width), (edge, node)


@given(dags())
@settings(max_examples=60, deadline=None)
def test_any_graph_of_steps(team: Team) -> None:
    """Each step once, each need once, all below what they need, nothing on anything else; the same again each time."""
    graph = layout(team)
    assert [node.id for node in graph.nodes] == [step.name for step in team.steps]
    wanted = {(before, step.name) for step in team.steps for before in step.depends_on}
    assert sorted((edge.source, edge.target) for edge in graph.edges) == sorted(wanted)
    check_places(graph)
    check_passages(graph)
    assert layout(team) == graph


@pytest.mark.parametrize("width", [3, 20, 100])
def test_a_wide_fan_becomes_rows(width: int) -> None:
    """Never more than a few cards beside each other."""
    graph = layout(fan(width))
    rows: dict[float, int] = {}
    for node in graph.nodes:
        rows[node.y] = rows.get(node.y, 0) + 1
    assert max(rows.values()) <= in_row(len(graph.nodes)) <= 7
    check_places(graph)
    check_passages(graph)


def test_a_graph_of_500_steps_that_need_all_before_them() -> None:
    """What longer ways imply is left out, and said to be."""
    names = [f"s{number}" for number in range(500)]
    steps = tuple(Step(name=name, role="r", depends_on=tuple(names[:number])) for number, name in enumerate(names))
    graph = layout(Team(name="all", roles=(role("r"),), steps=steps))
    assert len(graph.edges) == 499
    assert graph.left_out == 500 * 499 // 2 - 499 > MOST_EDGES


def test_a_cycle_is_told_on_a_card() -> None:
    """A plan has none; a picture of one that had would still be a picture."""
    steps = (Step(name="a", role="r", depends_on=("b",)), Step(name="b", role="r", depends_on=("a",)))
    graph = layout(Team(name="round", roles=(role("r"),), steps=steps))
    assert len(graph.edges) == 1
    assert sum("back to" in mark for node in graph.nodes for mark in node.marks) == 1


def test_what_stands_on_the_cards_of_steps() -> None:
    """Role, model, loop, approval, condition, and the team that fulfils a step."""
    graph = layout(pipeline())
    draft, printing = graph.node("draft"), graph.node("print")
    assert draft.subtitle == "writer · large"
    assert draft.marks == ("loop ≤ 5",)
    assert graph.node("facts").condition == "{{ .input.deep }}"
    assert (printing.team, printing.marks) == ("printers", ("approval", "team"))
    assert {node.phase for node in graph.nodes} == {None}


def test_a_run_is_seen_on_its_cards() -> None:
    """Phases, iterations, tokens, cost and seconds, of a running step until now."""
    graph = layout(pipeline(), pipeline_run(), now=110.0)
    facts = {node.id: facts_of(node) for node in graph.nodes}
    assert facts == {
        "research": "1.5k tok · 4.0 s · $0.50",
        "facts": "Skipped",
        "draft": "2 of 5 · 6.0 s",
        "print": "Pending",
    }
    assert layout(pipeline(), pipeline_run()).node("draft").seconds is None


def test_roles_and_who_may_ask_whom() -> None:
    """Asking back is told on the card, since lines lead down."""
    graph = layout(desk())
    assert {(edge.source, edge.target) for edge in graph.edges} == {
        ("role:lead", "role:coder"),
        ("role:lead", "role:critic"),
        ("role:coder", "role:critic"),
    }
    assert "back to lead" in graph.node("role:critic").marks
    assert "to itself" in graph.node("role:coder").marks


def test_what_was_really_delegated() -> None:
    """Each task is a card below who asked for it; a role that nobody has asked is pale."""
    graph = layout(desk(), desk_run(2), now=5.0)
    edges = {(edge.source, edge.target) for edge in graph.edges if edge.kind == "delegated"}
    assert edges == {("lead", "task:c0"), ("lead", "task:c1"), ("task:c0", "task:own")}
    assert graph.node("role:critic").is_idle
    check_places(graph)


def test_many_tasks_of_a_role_are_one_card() -> None:
    """Thirty of them would hide all else; those that they asked hang on it."""
    graph = layout(desk(), desk_run(30), now=5.0)
    many = graph.node("task:c0")
    assert (many.title, many.progress, many.phase) == ("coder x 30", "30 of 30 done", Phase.SUCCEEDED)
    assert ("task:c0", "task:own") in {(edge.source, edge.target) for edge in graph.edges}


def test_a_router_and_whom_it_chose() -> None:
    """Without a run, all may be chosen; with one, the others are pale, and the chosen one is the step."""
    assert [edge.is_idle for edge in layout(helpdesk()).edges] == [False, False]
    graph = layout(helpdesk(), helpdesk_run(), now=1.0)
    billing, technics = graph.node("role:billing"), graph.node("role:technics")
    assert (billing.step, billing.phase, billing.subtitle) == ("route", Phase.RUNNING, "invoices")
    assert technics.is_idle
    assert [edge.is_idle for edge in graph.edges] == [False, True]


def test_a_picture_is_drawn_over_the_one_before() -> None:
    """What differs is what stands on the cards; if a card is new, or its size another, all is arranged anew."""
    team, state = pipeline(), pipeline_run()
    first = layout(team)
    assert layout(team, state, now=110.0, before=first) == layout(team, state, now=110.0)
    before = layout(team, replace(state, steps=()), now=110.0)
    again = layout(team, state, now=110.0, before=before)
    assert again == layout(team, state, now=110.0)
    assert again.edges is before.edges
    grown = layout(desk(), desk_run(3), now=5.0, before=layout(desk(), desk_run(2), now=5.0))
    assert grown == layout(desk(), desk_run(3), now=5.0)
