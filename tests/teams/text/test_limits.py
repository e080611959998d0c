"""No template and no data can hang, swell or break the process: all they can raise is TemplateError."""

from __future__ import annotations

import contextlib
import inspect
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.teams.errors import TemplateError
from worker.teams.templates import Template
from worker.teams.templates.evaluation import Evaluator
from worker.teams.templates.functions import FUNCTIONS
from worker.teams.templates.limits import Limits
from worker.teams.templates.parsing import parse

CYCLE: dict[str, Any] = {"a": 1}
CYCLE["self"] = CYCLE
DEEP: list[Any] = []
for _ in range(5_000):
    DEEP = [DEEP]

ENDLESS = {
    "recursion": '{{define "r"}}{{template "r" .}}{{end}}{{template "r" .}}',
    "recursion that forks": '{{define "r"}}{{template "r" .}}{{template "r" .}}{{end}}{{template "r" .}}',
    "a long loop": "{{range 1000000000}}{{end}}",
    "nested loops": "{{range 1000}}{{range 1000}}{{range 1000}}x{{end}}{{end}}{{end}}",
    "a growing text": '{{$x := "aaaaaaaaaa"}}{{range 1000}}{{$x = print $x $x}}{{end}}{{$x}}',
    "a growing list": "{{$x := list 1 2}}{{range 1000}}{{$x = concat $x $x}}{{end}}",
    "a list that holds itself twice": "{{$x := list 1}}{{range 50}}{{$x = list $x $x}}{{end}}{{$x}}",
    "the same as JSON": "{{$x := list 1}}{{range 50}}{{$x = list $x $x}}{{end}}{{toJson $x}}",
    "the same compared": "{{$x := list 1}}{{range 50}}{{$x = list $x $x}}{{end}}{{deepEqual $x $x}}",
    "repeated repeats": '{{$x := repeat 1000 "x"}}{{range 1000}}{{$x = repeat 1000 $x}}{{end}}',
    "replacements that grow": '{{$x := "aa"}}{{range 100}}{{$x = replace "a" "aaaaaaaa" $x}}{{end}}',
    "regular replacements that grow": '{{$x := "aa"}}{{range 100}}{{$x = regexReplaceAll "a" $x "aaaaaaaa"}}{{end}}',
    "a pattern that others backtrack on": '{{range 1000}}{{regexFind "(a|a)*(a|a)*$" (repeat 5000 "a")}}{{end}}',
    "a pattern that is too large": '{{regexMatch "((a{1000}){1000}){1000}" "a"}}',
    "a cycle": "{{.cycle}}",
    "a cycle as JSON": "{{toJson .cycle}}",
    "a cycle formatted": '{{printf "%v" .cycle}}',
    "a cycle compared": "{{deepEqual .cycle .cycle}}",
    "deep data": "{{.deep}}",
    "deep data as pretty JSON": "{{toPrettyJson .deep}}",
    "JSON that is deep": '{{fromJson (print (repeat 100000 "[") (repeat 100000 "]"))}}',
    "many widths": '{{range 100000}}{{printf "%1000d" 1}}{{end}}',
    "nested parentheses": "{{" + "(" * 5_000 + "1" + ")" * 5_000 + "}}",
    "nested actions": "{{if 1}}" * 5_000 + "{{end}}" * 5_000,
    "a chain of else if": "{{if 0}}" + "{{else if 0}}" * 5_000 + "{{end}}",
    "too long a template": "x" * 1_100_000,
    "too many actions": "{{1}}" * 100_000,
}


@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS.keys())
def test_what_would_never_end_or_fit_is_stopped(template: str) -> None:
    """Proves that recursion, loops, growth, cycles, depth and heavy patterns end in a TemplateError, at a place."""
    with pytest.raises(TemplateError) as raised:
        Template.parse(template).render({"cycle": CYCLE, "deep": DEEP}, max_steps=50_000)
    assert raised.value.line >= 1
    assert raised.value.column >= 1


def test_the_output_is_bounded() -> None:
    """Proves the limit of the text, and that what fits below it is rendered."""
    template = Template.parse("{{range 100}}0123456789{{end}}")
    assert len(template.render({}, max_output_chars=1_000)) == 1_000
    with pytest.raises(TemplateError, match="longer than 999 characters"):
        template.render({}, max_output_chars=999)


def test_data_is_only_read() -> None:
    """Proves that attributes, methods and what JSON does not have cannot be reached, and that data stays as it is."""
    data = {"text": "x", "list": [1], "secret": object(), "call": len}
    for template in ("{{.text.upper}}", "{{.list.append}}", "{{.secret}}", "{{.call}}", "{{.text.__class__}}"):
        with pytest.raises(TemplateError):
            Template.parse(template).render(data)
    Template.parse("{{$x := append .list 2}}{{$y := prepend .list 3}}{{reverse .list}}").render(data)
    assert data["list"] == [1]


def test_a_template_is_safe_from_deep_in_the_stack() -> None:
    """Proves that little room on the interpreter's stack is an error of the template as well."""
    nested = "{{if 1}}" * 45 + "x" + "{{end}}" * 45

    def deeper(levels: int) -> str:
        return Template.parse(nested).render({}) if not levels else deeper(levels - 1)

    assert deeper(0) == "x"
    room = sys.getrecursionlimit() - len(inspect.stack(0))
    with pytest.raises(TemplateError, match="nested too deeply"):
        deeper(room - 60)


WORDS = [
    *("{{", "}}", "{{-", "-}}", " ", "\n", ".", ".a", ".b.c", "$", "$x", ":=", "=", "|", "(", ")", ","),
    *("if", "else", "end", "range", "with", "define", "template", "block", "break", "continue", "nil", "true"),
    *('"t"', "`r`", "'c'", "1", "-2.5", "0x1F", "1e9", '"%d %s"', '"%[9]*.*f"', '"(a+)+$"', "/*", "*/", "text"),
    *sorted(FUNCTIONS),
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcx"), inner, max_size=4),
    max_leaves=12,
)
DATA = st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES)


def rendered(template: str, data: dict[str, Any]) -> str | None:
    """The text; None for a TemplateError. Everything else goes through."""
    try:
        return Template.parse(template).render(data, max_steps=20_000, max_output_chars=20_000)
    except TemplateError:
        return None


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25).map("".join), DATA)
def test_any_text_renders_or_is_refused(template: str, data: dict[str, Any]) -> None:
    """Proves that a random text is parsed and rendered, or raises TemplateError, and gives the same twice."""
    assert rendered(template, data) == rendered(template, data)


ARGS = st.sampled_from(
    [".", ".a", ".b", ".c", "nil", "1", "-3", "2.5", '"x"', '"%v %5.2f %q"', "true", '"(a|b)*"', "0", "99"]
)


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(sorted(FUNCTIONS)), st.lists(ARGS, max_size=5), DATA)
def test_any_call_gives_a_value_or_is_refused(name: str, args: list[str], data: dict[str, Any]) -> None:
    """Proves that each function with random arguments gives a text, or raises TemplateError, and changes no data."""
    before = repr(data)
    rendered(f"{{{{ {name} {' '.join(args)} | printf `%v` }}}}", data)
    rendered(f"{{{{ {' | '.join([*args[:1], f'{name} ' + ' '.join(args[1:])])} }}}}", data)
    assert repr(data) == before


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25).map(lambda words: "{{" + " ".join(words) + "}}"), DATA)
def test_the_work_stays_within_its_bound(template: str, data: dict[str, Any]) -> None:
    """Proves that no random template does much more work than the steps that it is given."""
    limits = Limits(max_steps=2_000)
    with contextlib.suppress(TemplateError):
        Evaluator(parse(template, "t"), template, "t", limits).render(data)
    assert limits.steps < 20_000
