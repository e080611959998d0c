"""YAML documents: how they are split, what their values are, where they stand, and what is refused."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from tests.teams.kinds.files import AGENT, bundle, findings, flow, places
from worker.teams.errors import BadTeamFile
from worker.teams.kinds.findings import Findings
from worker.teams.kinds.yaml_documents import MAX_DEPTH, read_documents, resolved


def _plain(text: str) -> list[Any]:
    found = Findings("x.yaml")
    documents = [node.plain() for node in read_documents(textwrap.dedent(text), found)]
    assert not found.has_errors, found.all()
    return documents


def test_documents_are_split_as_yaml_does() -> None:
    """Given separators, an end mark, comments and `---` inside of text, only real documents are found."""
    text = """\
        # a comment alone
        ---
        a: "x\\n---\\ny"
        ...
        ---
        b: |
          ---
        ---
        """
    assert _plain(text) == [{"a": "x\n---\ny"}, {"b": "---\n"}]


def test_words_that_yaml_once_took_for_truth_values_stay_words() -> None:
    """`on` is a key of notification policies: it has to stay a word, as have dates and versions."""
    assert _plain("{on: yes, at: 2026-01-01, n: 1.50, x: 0x10, o: 0o17, e: 1e3, no: ~}") == [
        {"on": "yes", "at": "2026-01-01", "n": 1.5, "x": 16, "o": 15, "e": 1000.0, "no": None}
    ]


@pytest.mark.parametrize("text", ["9" * 5000, "-" + "9" * 19, "1_000", "0777777777777777777777x", ".", "1e9999", "é"])
def test_what_is_no_number_is_text(text: str) -> None:
    """Numbers that nothing here could hold are kept as they are written."""
    assert resolved(text) == text


def test_aliases_and_merges() -> None:
    """An alias is the anchor's value; what stands in the mapping itself comes before what is merged."""
    assert _plain("base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\nboth: {<<: [*b, {z: 9}]}\nlist: [*b]") == [
        {
            "base": {"x": 1, "y": 2},
            "use": {"x": 1, "y": 3},
            "both": {"x": 1, "y": 2, "z": 9},
            "list": [{"x": 1, "y": 2}],
        }
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: 1\nb: 2\na: 3\n", "3:1: key 'a' is given twice in this mapping, first in line 1"),
        ("a: 1\nb: [1, 2\nc: 3\n", "3:2: did not find expected ',' or ']'"),
        ("a: !!python/object:os.system x\n", "1:4: tag 'python/object:os.system' means nothing here"),
        ("a: !secret x\n", "1:4: tag '!secret' means nothing here"),
        ("x: *nobody\n", "1:4: alias *nobody has no anchor before it"),
        ("x: &a [*a]\n", "1:8: alias *a has no anchor before it"),
        ("in: {{ .input.x }}\n", "1:6: a key is a mapping or a list: a template such as {{ .input.x }} goes in quotes"),
        (
            "[" * (MAX_DEPTH + 5) + "]" * (MAX_DEPTH + 5),
            f"1:{MAX_DEPTH + 1}: it is nested too deeply: at most 40 levels",
        ),
        ("a: 1\n\tb: 2\n", "2:1: "),
        ("a: \x00\n", "1:1: this is no YAML"),
        ("<<: x\n<<: {}\n", "1:5: '<<' takes a mapping"),
        ("just text", "1:1: the document is text: use a mapping"),
        ("[1]", "1:1: the document is a list: use a mapping"),
        ("\ud800", "1:1: this is no text"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text: str, place: str) -> None:
    """Each kind of broken YAML is an error at its line and column."""
    found = places(text)
    assert found
    assert found[0].startswith(place), found


def test_growing_aliases_are_refused_at_once() -> None:
    """The billion laughs are no more than a few thousand."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "it is too large: more than 100,000 values, those of aliases included" in places("\n".join(lines))[0]


def test_a_long_text_is_not_repeated_for_ever() -> None:
    """A few aliases of a text would make a plan of gigabytes."""
    text = f"a: &a {'x' * 200_000}\nb: [{', '.join(['*a'] * 100)}]"
    assert "it is too large" in places(text)[0]


def test_aliases_do_not_nest_deeper_than_anything_else() -> None:
    """Each level is shallow, and all of them together would exhaust the stack."""
    lines = [f"a0: &a0 {'[' * 30}x{']' * 30}"]
    lines += [f"a{n}: &a{n} {'[' * 30}*a{n - 1}{']' * 30}" for n in range(1, 60)]
    assert places("\n".join(lines)) == [
        f"2:39: it is nested too deeply: at most {MAX_DEPTH} levels, those of aliases included"
    ]


def test_an_enormous_file_is_refused() -> None:
    """It is not even looked at."""
    assert "larger than 4,000,000 characters" in places("x: " + "y" * 4_000_001)[0]


def test_documents_before_broken_yaml_are_checked_too() -> None:
    """All errors at once: those of documents that could be read, and the place where reading ended."""
    text = flow("{name: a, arkAgent: writer, loop: {condition: x, maxIterations: 0}}") + "---\na: [1\n"
    found = places(text)
    assert [each.split(":")[0] for each in found] == ["6", "14"]


def test_a_template_without_quotes_is_told_what_it_needs() -> None:
    """The commonest mistake in these files has a message of its own."""
    text = flow("{name: a, arkAgent: writer}", more="  output: {{ .steps.a.output }}\n")
    assert "goes in quotes" in places(text)[0]


def test_line_ends_of_windows_and_a_byte_order_mark(tmp_path: Any) -> None:
    """Files that were written on Windows are read, and their lines are counted."""
    path = tmp_path / "team.yaml"
    path.write_bytes(
        b"\xef\xbb\xbf"
        + flow("{name: a, arkAgent: writer}", "{name: a, arkAgent: writer}").replace("\n", "\r\n").encode()
    )
    from worker.teams.bundle import look_at

    _, found = look_at(path)
    assert [(each.line, each.message) for each in found.all()] == [
        (7, "step 'a' is there twice, first in line 6: give them names")
    ]


def test_a_file_that_is_no_text_or_not_there(tmp_path: Any) -> None:
    """Both are one clear error."""
    from worker.teams.bundle import read_bundle

    (tmp_path / "x.yaml").write_bytes(b"kind: \xff")
    with pytest.raises(BadTeamFile, match=r"it is no UTF-8 text \(byte 6\)"):
        read_bundle(tmp_path / "x.yaml")
    with pytest.raises(BadTeamFile, match="No such file"):
        read_bundle(tmp_path / "none.yaml")
    with pytest.raises(BadTeamFile, match="Is a directory"):
        read_bundle(tmp_path)


def test_documents_of_other_kinds_are_skipped_with_a_note() -> None:
    """Nothing of a Kubernetes file is in the way, and nothing is skipped in silence."""
    text = "kind: Deployment\nmetadata: {name: d}\n---\nx: 1\n---\nkind: ArkTaem\n---\nkind: ArkService\n---\n" + AGENT
    assert [f"{each.line}:{each.column}: {each.severity}: {each.message}" for each in findings(text)] == [
        "1:7: note: kind 'Deployment' is skipped",
        "4:1: note: a document without kind is skipped",
        "6:7: note: kind 'ArkTaem' is skipped (did you mean `ArkTeam`?)",
        "8:7: note: kind 'ArkService' is skipped: every team and agent can be reached through `shoal serve`",
    ]
    assert bundle(text).agents == ("writer",)
