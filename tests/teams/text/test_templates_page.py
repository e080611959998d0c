"""The page for people who write team files says what is so."""

from __future__ import annotations

import re
from pathlib import Path

from worker.teams.templates import Template
from worker.teams.templates.functions import FUNCTIONS

PAGE = (Path(__file__).parents[3] / "docs" / "templates.md").read_text()
NOT_LISTED = {"call", "tuple", "push", "trimall", "biggest", "toStrings"}
"""Other names of listed functions, and what is refused."""


def test_every_example_is_a_template() -> None:
    """Proves that the examples of the language parse; placeholders of the page are no part of them."""
    blocks = re.findall(r"```gotemplate\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        Template.parse('{{ define "x" }}{{ end }}{{ $i := 0 }}' + block.replace("`$n = 3`", ""))


def test_every_function_is_listed_and_there() -> None:
    """Proves that the table of functions and the engine have the same ones."""
    table = PAGE.partition("## Functions")[2].partition("The arguments come")[0]
    listed = set(re.findall(r"`(\w+)`", table))
    known = {name for name in FUNCTIONS if not name.startswith("must")} - NOT_LISTED
    assert listed == known
