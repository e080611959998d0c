"""The template language does what Go's text/template and fmt are documented to do."""

from __future__ import annotations

import pytest

from tests.teams.text import function_cases, language_cases
from worker.teams.errors import TemplateError
from worker.teams.templates import Nothing, Template, Texts, parsed


@pytest.mark.parametrize(("template", "expected"), language_cases.PRINTS)
def test_a_template_prints_what_go_prints(template: str, expected: str) -> None:
    """Proves text, actions, pipelines, control structures, variables, functions and printf verbs, row by row."""
    assert Template.parse(template).render(language_cases.DATA) == expected


@pytest.mark.parametrize(("template", "expected"), language_cases.REFUSED)
def test_what_go_refuses_is_refused_at_its_place(template: str, expected: str) -> None:
    """Proves that each faulty template raises a TemplateError with line, column, and what is wrong."""
    with pytest.raises(TemplateError) as raised:
        Template.parse(template, name="case").render(language_cases.DATA)
    assert str(raised.value) == f"case:{expected}"


@pytest.mark.parametrize(("template", "expected"), function_cases.PRINTS)
def test_functions_give_what_sprig_gives(template: str, expected: str) -> None:
    """Proves the functions known from Helm, with the piped value last."""
    assert Template.parse(template).render(function_cases.DATA) == expected


@pytest.mark.parametrize(("template", "expected"), function_cases.REFUSED)
def test_functions_refuse_what_they_cannot_do(template: str, expected: str) -> None:
    """Proves that wrong arguments, missing functions and huge sizes are errors that say what is allowed."""
    with pytest.raises(TemplateError) as raised:
        Template.parse(template).render(function_cases.DATA)
    assert expected in str(raised.value)


def test_an_error_knows_its_line_and_column() -> None:
    """Proves that positions are those of the failing token, over several lines, also at rendering."""
    with pytest.raises(TemplateError) as raised:
        Template.parse("first\n  {{ .a }}\n  é {{ .b.c }}", name="steps.x.inputs.y").render({"a": 1, "b": 2})
    assert (raised.value.line, raised.value.column) == (3, 10)
    assert raised.value.name == "steps.x.inputs.y"
    assert str(raised.value).startswith("steps.x.inputs.y:3:10: can't evaluate field c in type int")


def test_missing_keys_are_as_in_go() -> None:
    """Proves missingkey=zero: "" for a map of strings, `<no value>` for others; nothing's fields are nothing."""
    data = {"texts": Texts(a="x"), "map": {"a": 1}, "nothing": Nothing()}
    assert Template.parse("[{{.texts.zz}}][{{.map.zz}}][{{.nothing.a.b}}]").render(data) == "[][<no value>][<no value>]"
    assert Template.parse("{{if .nothing.a}}yes{{else}}no{{end}} {{toJson .nothing}}").render(data) == "no null"


def test_numbers_compare_by_value() -> None:
    """Proves the one deliberate difference to Go: JSON has one kind of number, so 1 and 1.0 are equal."""
    assert Template.parse("{{eq 1 1.0}} {{lt 1 1.5}} {{ge .n 3}}").render({"n": 3.0}) == "true true true"


def test_a_key_with_a_dash_is_read_with_index() -> None:
    """Proves that the message for `.my-key` names the way that works, and that it does."""
    with pytest.raises(TemplateError, match="index"):
        Template.parse("{{ .steps.my-step.output }}")
    data = {"steps": {"my-step": {"output": "x"}}}
    assert Template.parse('{{ (index .steps "my-step").output }}').render(data) == "x"


def test_the_same_text_is_parsed_once() -> None:
    """Proves that `parsed` keeps templates by text and name."""
    assert parsed("{{ .a }}", "n") is parsed("{{ .a }}", "n")
    assert parsed("{{ .a }}", "m").name == "m"
