"""docs/team-files.md says all that can be read, and its example can be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.teams.kinds.files import bundle
from worker.teams.kinds.documents import KINDS, SKIPPED, SPECS
from worker.teams.kinds.objects import Field, Object

PAGE = Path(__file__).parents[3] / "docs" / "team-files.md"
TEXT = PAGE.read_text(encoding="utf-8")
NAMED = {
    word
    for code in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL))
    for word in re.findall(r"\w+", code)
}


def _fields(shape: Any, found: dict[tuple[str, str], Field], seen: set[int]) -> None:
    if id(shape) in seen:
        return
    seen.add(id(shape))
    if isinstance(shape, Object):
        for name, field in shape.fields.items():
            found[shape.what, name] = field
            _fields(field.shape, found, seen)
    for inner in (getattr(shape, "item", None), *(getattr(shape, "shapes", None) or {}).values()):
        if inner is not None:
            _fields(inner, found, seen)


def _all_fields() -> dict[tuple[str, str], Field]:
    found: dict[tuple[str, str], Field] = {}
    for spec in SPECS.values():
        _fields(spec, found, set())
    return found


def test_every_field_is_on_the_page() -> None:
    """Whoever adds a field tells of it."""
    missing = [f"{what}: {name}" for what, name in _all_fields() if name not in NAMED]
    assert missing == []


def test_every_kind_is_on_the_page() -> None:
    """Also those that are skipped."""
    known = {*KINDS, *(kind for kind in SKIPPED if not kind.endswith("Service")), "ArkService"}
    assert known <= NAMED


def test_the_walk_finds_the_fields() -> None:
    """The two tests above look at something: fields deep in the tree are among those they walk through."""
    found = _all_fields()
    assert ("a loop's memory", "minSimilarity") in found
    assert ("a key selector", "nothing") not in found
    assert len(found) > 200


def test_the_example_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word of warning, and with all that it promises."""
    monkeypatch.delenv("MAIL_TOKEN", raising=False)
    text = re.search(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert text is not None
    found = bundle(text[1], tmp_path)
    assert found.findings == ()
    assert (found.teams, found.agents) == (("answer-mail",), ("researcher",))
    assert [trigger.slug for trigger in found.triggers] == ["mail-in"]
    assert [policy.slug for policy in found.notifies] == ["desk"]
    team = found.plan().team
    assert [step.name for step in team.steps] == ["researcher", "send"]
    researcher = team.roles[0]
    assert researcher.config.system_prompt.startswith("You work for a small bookshop.\n\nYou look things up")
    assert found.env == {"MAIL_TOKEN": "not-a-real-token"}
