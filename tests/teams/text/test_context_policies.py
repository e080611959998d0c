"""What later steps see of an output."""

from __future__ import annotations

import pytest

from worker.teams.context_policies import DATA_NOTE, compress_prompt, data_note, extract, truncated, visible, wrapped
from worker.teams.json_paths import NOT_FOUND, value_at
from worker.teams.plan import ContextPolicy, Step, Team

DATA = {"items": [{"name": "a", "n": 1}, {"name": "b"}], "the key": {"x": None}, "7": "seven"}

PATHS = [
    ("$", DATA),
    ("$.items[0].name", "a"),
    ("items.1.name", "b"),
    ("$.items[-1].name", "b"),
    ("$['the key'].x", None),
    ('$["the key"]', {"x": None}),
    ("items[*].name", ["a", "b"]),
    ("items.#.n", [1]),
    ("7", "seven"),
    ("items[9]", NOT_FOUND),
    ("items.name", NOT_FOUND),
    ("$..name", NOT_FOUND),
    ("$.items[?(@.n)]", NOT_FOUND),
    ("", NOT_FOUND),
]


@pytest.mark.parametrize(("path", "expected"), PATHS)
def test_a_path_reads_json(path: str, expected: object) -> None:
    """Proves JSONPath's plain parts and the dotted form, and what is not found."""
    found = value_at(DATA, path)
    assert found is NOT_FOUND if expected is NOT_FOUND else found == expected


EXTRACTS = [
    ("$.a.b", '{"a": {"b": 1.5}}', "1.5"),
    ("a", '{"a": {"b": [1, "x"]}}', '{"b":[1,"x"]}'),
    ("a", 'Here:\n```json\n{"a": "text"}\n```', "text"),
    ("a", '{"a": true}', "true"),
    ("Answer: (\\w+)", "Well. Answer: yes!", "yes"),
    ("\\d+", "room 101", "101"),
    ("(x)?y", "zy", ""),
    ("nothing", "stays", "stays"),
    ("$.nope", '{"a": 1}', '{"a": 1}'),
    ("(", "stays", "stays"),
    ("", "stays", "stays"),
]


@pytest.mark.parametrize(("path", "output", "expected"), EXTRACTS)
def test_an_extract_is_a_value_or_the_first_group(path: str, output: str, expected: str) -> None:
    """Proves paths in JSON, expressions in prose, and that what finds nothing loses nothing."""
    assert extract(path, output) == expected
    assert visible(ContextPolicy(strategy="extract", path=path), output) == expected


def test_strategies_leave_what_they_say() -> None:
    """Proves full, none, and that compress leaves the text for its task."""
    assert visible(None, "x") == "x"
    assert visible(ContextPolicy(), "x") == "x"
    assert visible(ContextPolicy(strategy="none"), "x") == ""
    assert visible(ContextPolicy(strategy="compress"), "x") == "x"


def test_a_long_output_is_cut_between_characters() -> None:
    """Proves the limit in bytes of UTF-8, the mark, and that 0 and what fits are left alone."""
    assert truncated("aéé", 4) == "aé\n[truncated]"
    assert truncated("aéé", 5) == "aéé"
    assert truncated("a" * 100, 0) == "a" * 100


def test_the_wrapping_of_nothing_is_nothing() -> None:
    """Proves that an empty output stays empty, so that conditions find it so."""
    assert wrapped("x", "") == ""


def test_who_gets_wrapped_text_is_told_what_it_is() -> None:
    """Proves the word in the system prompt of a step with wrapped inputs, and of no other."""
    steps = (
        Step(name="a", role="r", inputs={"topic": "{{ .input.topic }}"}),
        Step(name="b", role="r", inputs={"text": '{{ (index .steps "a").output }}'}),
    )
    assert data_note(Team(name="t", steps=steps), "b") == DATA_NOTE
    assert data_note(Team(name="t", steps=steps), "a") == ""
    assert data_note(Team(name="t", steps=steps, wraps_outputs=False), "b") == ""
    assert data_note(Team(name="t", steps=steps), "delegated") == ""


def test_the_compress_prompt_has_the_task_the_size_and_the_output() -> None:
    """Proves our instruction, the policy's own in its place, and the size wanted."""
    ours = compress_prompt(ContextPolicy(strategy="compress", target_tokens=200), "the output")
    own = compress_prompt(ContextPolicy(strategy="compress", prompt="Three words."), "the output")
    assert "about 200 tokens" in ours
    assert ours.endswith("Step output to compress:\nthe output")
    assert own == "Three words.\n\nStep output to compress:\nthe output"
