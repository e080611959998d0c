"""What of the preludes is sent with a script: all that it uses, and nothing that it does not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import queue_backends
from queue_backends.redis.script_text import script_text, with_used

PACKAGES = {"": "redis", "queue_backends.arq.scripts:": "arq"}
FOLDERS = {prefix: Path(queue_backends.__file__).parent / name / "scripts" for prefix, name in PACKAGES.items()}
SCRIPTS = [
    prefix + path.stem
    for prefix, folder in FOLDERS.items()
    for path in sorted(folder.glob("*.lua"))
    if path.stem != "prelude"
]
PRELUDE = """\
-- One.
local function one()
  return 1
end

local table = {}

-- Two is one and one.
local function two()
  return one() + one()
end

local function three()
  return two() + 1
end
"""


def _functions(text: str) -> list[str]:
    return re.findall(r"^local function (\w+)", text, re.MULTILINE)


def test_functions_come_with_what_they_use() -> None:
    """In their order, before the script; what is no function stays."""
    text = with_used(PRELUDE, "return two()\n")
    assert _functions(text) == ["one", "two"]
    assert "local table = {}" in text
    assert text.endswith("return two()\n")


def test_a_comment_uses_nothing() -> None:
    """What only a comment of the prelude names is left out."""
    assert _functions(with_used("local function two()\nend\n-- See two.\nlocal function one()\nend\n", "one()")) == [
        "one"
    ]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_every_function_that_it_names(name: str) -> None:
    """None of the preludes' functions is called in a script that has come without it."""
    text = script_text(name)[0]
    package = name.rpartition(":")[0]
    known = [*_functions((FOLDERS[""] / "prelude.lua").read_text())]
    if package:
        known += _functions((FOLDERS[f"{package}:"] / "prelude.lua").read_text())
    called = set(re.findall(r"(?<![.\w])(\w+)\(", text))
    assert called & set(known) <= set(_functions(text))


@pytest.mark.parametrize("folder", FOLDERS.values(), ids=PACKAGES.values())
def test_nothing_else_stands_behind_a_function(folder: Path) -> None:
    """A function of a prelude ends with its own `end`: what stood behind it would go with it."""
    text = (folder / "prelude.lua").read_text()
    pieces = re.split(r"^(?=local )", re.sub(r"^ *--.*\n|^\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)
    for piece in pieces:
        lines = piece.splitlines()
        if lines and lines[0].startswith("local function"):
            assert lines[-1] == "end"
            assert all(line.startswith(" ") for line in lines[1:-1])
