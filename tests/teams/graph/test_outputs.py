"""Pictures as text, SVG and Mermaid: of ordinary teams, and of those whose names attack what they are written into."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.teams.graph.teams import HOSTILE, desk, desk_run, fan, hostile, pipeline, pipeline_run, role
from tests.teams.graph.test_layout import dags
from worker.cli.app import run as shoal
from worker.teams.graph import as_mermaid, as_svg, as_text, layout
from worker.teams.graph.wording import cells, clipped_pixels, one_line, pixels
from worker.teams.plan import Step, Team

SVG = "{http://www.w3.org/2000/svg}"


def test_a_team_in_a_terminal() -> None:
    """Boxes in rows, lines between them; without colour no control character."""
    text = as_text(layout(pipeline()), 80)
    assert "\x1b" not in text
    lines = text.split("\n")
    order = [next(n for n, line in enumerate(lines) if f"│ {name}" in line) for name in ("research", "facts", "draft")]
    assert order == sorted(order)
    assert "║ print" in text, "a step that a team fulfils has a double frame"
    assert text.count("▼") == 3, "both lines to print become one"
    assert "if {{ .input.deep }}" in text
    assert "loop ≤ 5" in text


def test_a_run_in_a_terminal_has_signs_and_colours() -> None:
    """The signs say it without colour."""
    graph = layout(pipeline(), pipeline_run(), now=110.0)
    assert re.search(r"✓ research", as_text(graph, 80))
    assert re.search(r"● draft", as_text(graph, 80))
    assert "\x1b[32m" in as_text(graph, 80, colour=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", as_text(graph, 80, colour=True)) == as_text(graph, 80)


@given(dags(), st.integers(30, 140))
@settings(max_examples=40, deadline=None)
def test_a_terminal_is_never_too_narrow(team: Team, width: int) -> None:
    """No line is longer than it may be, and each step is there once, drawn or listed."""
    text = as_text(layout(team), width)
    assert all(cells(line) <= width for line in text.split("\n"))
    found = re.findall(r"(?:^|│ | )(s\d+)(?= *│| \(r)", text, re.MULTILINE)
    assert sorted(found) == sorted(step.name for step in team.steps)


def test_too_narrow_for_boxes_is_a_list() -> None:
    """Indented by depth, with what each comes after."""
    text = as_text(layout(fan(4)), 30)
    assert text.split("\n")[:2] == ["split (worker · small)", "  part-0 (worker · small) aft…"]
    assert "┌" not in text
    assert as_text(layout(Team(name="none")), 80) == "no steps"


def test_an_svg_stands_by_itself_and_can_be_read_aloud() -> None:
    """Well-formed, with a title and a description of each step in words; nothing from elsewhere; light and dark."""
    text = as_svg(layout(pipeline(), pipeline_run(), now=110.0))
    root = ET.fromstring(text)
    assert root.attrib["role"] == "img"
    assert root.findtext(f"{SVG}title") == "newsroom: Running"
    about = root.findtext(f"{SVG}desc") or ""
    assert "✓ research (researcher · small) Succeeded: 1.5k tok · 4.0 s" in about
    assert "facts" in about
    assert "after draft, research" in about
    assert not re.search(r"(href|src|url\((?!#))", text), "nothing is loaded from elsewhere"
    assert "prefers-color-scheme:dark" in text
    assert "prefers-color-scheme" not in as_svg(layout(pipeline()), "dark")
    assert len([each for each in root.iter(f"{SVG}g") if "node" in each.attrib.get("class", "")]) == 4


def test_a_team_as_mermaid() -> None:
    """The golden text of a small team: ids of our own, quoted labels, the condition on its edge."""
    assert as_mermaid(pipeline()) == (
        "flowchart TD\n"
        "    %% newsroom\n"
        '    n1["research<br/>researcher · small"]\n'
        '    n2["facts<br/>researcher · small"]\n'
        '    n3["draft<br/>writer · large<br/>loop ≤ 5"]\n'
        '    n4[["print<br/>press · team printers<br/>approval, team"]]\n'
        "    n1 --> n2\n"
        "    n2 --> n3\n"
        "    n3 --> n4\n"
        "    n1 --> n4\n"
    ).replace("    n1 --> n2\n", '    n1 -->|"if #123;#123; .input.deep #125;#125;"| n2\n')
    assert '(["lead<br/>' in as_mermaid(desk())
    assert ":::running" in as_mermaid(desk(), desk_run(2), now=2.0)


def test_mermaid_of_a_large_team_has_few_enough_edges() -> None:
    """Renderers refuse more than 500."""
    names = [f"s{number}" for number in range(60)]
    steps = tuple(Step(name=name, role="r", depends_on=tuple(names[:number])) for number, name in enumerate(names))
    text = as_mermaid(Team(name="all", roles=(role("r"),), steps=steps))
    assert text.count("-->") == 59


def test_hostile_names_stay_text_in_svg() -> None:
    """No element and no attribute comes of them, and the file is well-formed."""
    root = ET.fromstring(as_svg(layout(hostile())))
    assert {each.tag.removeprefix(SVG) for each in root.iter()} == {
        "svg", "title", "desc", "style", "rect", "defs", "marker", "path", "g", "text",
    }  # fmt: skip
    allowed = {
        "class", "role", "aria-labelledby", "aria-describedby", "width", "height", "viewBox", "id", "refX", "refY",
        "markerWidth", "markerHeight", "orient", "d", "marker-end", "transform", "x", "y", "rx", "text-anchor",
    }  # fmt: skip
    assert {name for each in root.iter() for name in each.attrib} <= allowed
    assert root.findtext(f"{SVG}title") == one_line(HOSTILE)


def test_hostile_names_stay_within_their_boxes_in_a_terminal() -> None:
    """No control character reaches the terminal, no line breaks, frames stay closed."""
    text = as_text(layout(hostile()), 80)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]", text)
    boxed = [line for line in text.split("\n") if line.startswith("│ ")]
    assert all(line.endswith("│") for line in boxed)
    assert len({cells(line) for line in boxed[:3]}) == 1


def test_hostile_names_stay_labels_in_mermaid() -> None:
    """Each line is a node or an edge of ours; between its quotes is no quote, bracket, brace, angle or backtick."""
    lines = as_mermaid(hostile()).splitlines()
    assert lines[0] == "flowchart TD"
    for line in lines[2:]:
        node = re.fullmatch(r' {4}n\d+\["([^"]*)"\]', line)
        edge = re.fullmatch(r' {4}n\d+ -->(?:\|"([^"]*)"\|)? n\d+', line)
        assert node or edge, line
        label = (node or edge)[1] or ""  # type: ignore[index]  # one of them matched
        assert not re.search(r"[\[\]{}<>`\"|&]", label.replace("<br/>", "")), label
        assert len(label) < 2000


@given(st.text(max_size=60), st.integers(20, 300))
def test_clipped_texts_fit(text: str, room: int) -> None:
    """Whatever the characters are."""
    shown = clipped_pixels(text, room, 12)
    assert pixels(shown, 12) <= room
    assert "\n" not in shown


TEAM_FILE = """
apiVersion: kubeswarm.io/v1alpha1
kind: SwarmTeam
metadata: {name: first}
spec:
  roles: [{name: clerk, model: mock}]
  pipeline: [{name: work, role: clerk}, {name: check, role: clerk, dependsOn: [work]}]
---
apiVersion: kubeswarm.io/v1alpha1
kind: SwarmTeam
metadata: {name: second}
spec:
  roles: [{name: boss, model: mock}]
  pipeline: [{name: alone, role: boss}]
"""


def test_the_command_draws_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text on the terminal; the suffix of -o says which form; --flow chooses; an unknown team is an error."""
    file = tmp_path / "team.yaml"
    file.write_text(TEAM_FILE)
    assert shoal(["graph", str(file), "--width", "60"]) == 0
    assert "│ check" in capsys.readouterr().out
    assert shoal(["graph", str(file), "--flow", "second", "-o", str(tmp_path / "second.svg")]) == 0
    assert "alone" in (tmp_path / "second.svg").read_text()
    assert shoal(["graph", str(file), "-o", str(tmp_path / "team.md")]) == 0
    assert (tmp_path / "team.md").read_text().startswith("```mermaid\nflowchart TD")
    assert shoal(["graph", str(file), "--format", "mermaid"]) == 0
    assert capsys.readouterr().out.startswith("flowchart TD")
    assert shoal(["graph", str(file), "--flow", "third"]) != 0
    assert 'team "third" not found' in capsys.readouterr().err
    assert shoal(["graph"]) == 2
