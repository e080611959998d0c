"""A run's input: conversion, defaults, what is missing and what nobody asked for."""

from __future__ import annotations

from typing import Any

import pytest

from worker.teams.errors import BadInput
from worker.teams.inputs import check_input
from worker.teams.plan import InputSpec, Team

TEAM = Team(
    name="t",
    inputs=(
        InputSpec(name="topic", required=True, description="What about."),
        InputSpec(name="count", type="number", default="3"),
        InputSpec(name="deep", type="boolean", default="false"),
        InputSpec(name="filter", type="object"),
        InputSpec(name="tags", type="array", default='["a"]'),
    ),
    input={"note": "from the file"},
)


def test_defaults_and_what_stands_in_the_file_fill_the_gaps() -> None:
    """What is given comes first, then the file's values, then the defaults; what has none is not there."""
    assert check_input(TEAM, {"topic": "x"}) == {
        "note": "from the file",
        "topic": "x",
        "count": 3,
        "deep": False,
        "tags": ["a"],
    }
    assert check_input(TEAM, {"topic": "x", "note": "mine", "count": 4})["note"] == "mine"


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("count", "4", 4),
        ("count", "-1.5e2", -150.0),
        ("count", 7, 7),
        ("deep", "TRUE", True),
        ("deep", "no", False),
        ("deep", True, True),
        ("filter", '{"a": [1]}', {"a": [1]}),
        ("filter", {"a": 1}, {"a": 1}),
        ("tags", "[]", []),
        ("topic", 5, "5"),
        ("topic", {"a": "é"}, '{"a": "é"}'),
        ("topic", "", ""),
    ],
)
def test_text_becomes_the_declared_type(name: str, given: Any, expected: Any) -> None:
    """Command lines and triggers have nothing but text."""
    assert check_input(TEAM, {"topic": "x", name: given})[name] == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r'required input parameter "topic" is missing \(What about.\): give it as string'),
        ({"topic": None}, 'required input parameter "topic" is missing'),
        ({"topic": "x", "count": "many"}, "input 'count' is 'many': use a number"),
        ({"topic": "x", "count": True}, "input 'count' is True: use a number"),
        ({"topic": "x", "count": "NaN"}, "input 'count' is 'NaN': use a number"),
        ({"topic": "x", "count": "1e999"}, "input 'count' is '1e999': use a number"),
        ({"topic": "x", "count": 10**400}, "input 'count' is 1000"),
        ({"topic": "x", "filter": '{"a": 1e999}'}, r"input 'filter' is '\{\"a\": 1e999\}': use a JSON object"),
        ({"topic": "x", "filter": {"a": float("nan")}}, "input 'filter' cannot be written as JSON: Out of range"),
        ({"topic": "not\udcffutf-8"}, "input 'topic' cannot be written as JSON: .*surrogates"),
        ({"topic": "x", "deep": "perhaps"}, "input 'deep' is 'perhaps': use true or false"),
        ({"topic": "x", "filter": "[1]"}, r"input 'filter' is \[1\]: use a JSON object"),
        ({"topic": "x", "tags": "a,b"}, "input 'tags' is 'a,b': use a JSON list"),
        ({"topic": "x", "tags": "[" * 100_000}, "use a JSON list"),
        ({"topik": "x"}, r"team 't' has no input 'topik' \(did you mean 'topic'\?\): it takes topic, count, deep"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    """With the parameter, its value and what is allowed."""
    with pytest.raises(BadInput, match=message):
        check_input(TEAM, given)


def test_a_team_that_declares_nothing_takes_anything() -> None:
    """As ark's flows do."""
    team = Team(name="t", input={"a": "1", "b": "2"})
    assert check_input(team, {"b": 3, "c": [4]}) == {"a": "1", "b": 3, "c": [4]}
