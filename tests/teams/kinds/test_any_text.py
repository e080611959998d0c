"""Whatever a file holds, reading it ends soon, in a bundle or in an error that says what is wrong."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.teams.kinds.test_generations import GENERATIONS
from worker.teams.bundle import look_at, read_bundle
from worker.teams.errors import BadTeamFile
from worker.teams.kinds.documents import KINDS, SPECS
from worker.teams.kinds.objects import Object

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _names(shape: Any, found: set[str]) -> set[str]:
    if isinstance(shape, Object):
        for name, field in shape.fields.items():
            if name not in found:
                found.add(name)
                _names(field.shape, found)
    for inner in ("item", "shapes"):
        below = getattr(shape, inner, None)
        for each in below.values() if isinstance(below, dict) else [below] if below is not None else []:
            _names(each, found)
    return found


FIELDS = sorted(set().union(*(_names(spec, set()) for spec in SPECS.values())))
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["mock", "a", "{{ .steps.a.output }}", "{{", "0 9 * * *", "http://x/", "full", "cron", "webhook"]),
    st.text(max_size=12),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5)),
    max_leaves=25,
)
DOCUMENTS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from([*KINDS, "Secret", "ConfigMap"]),
        "metadata": st.fixed_dictionaries({"name": st.text(max_size=5)}),
    },
    optional={"spec": VALUES, "data": VALUES, "stringData": VALUES, "apiVersion": st.just("arkonis.dev/v1")},
)


def _read(text: str) -> None:
    with suppress(BadTeamFile):
        read_bundle(Path("nowhere/team.yaml"), text=text)


@QUICK
@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    """Random text is refused, or has nothing in it."""
    _read(text)


@QUICK
@given(st.binary(max_size=200))
def test_any_bytes(raw: bytes) -> None:
    """Random bytes too."""
    _read(raw.decode("utf-8", "surrogateescape"))


@QUICK
@given(st.lists(DOCUMENTS, max_size=4))
def test_any_document_of_our_kinds(documents: list[dict[str, Any]]) -> None:
    """Our kinds with any values in any of our fields: never anything but findings with places in the file."""
    text = yaml.safe_dump_all(documents, allow_unicode=True)
    try:
        _, found = look_at(Path("nowhere/team.yaml"), text=text)
    except BadTeamFile:
        return
    last = len(text.splitlines()) + 1  # YAML knows more line ends than \n
    assert all(1 <= each.line <= last and each.column >= 1 for each in found.all())


@QUICK
@given(st.sampled_from(sorted(GENERATIONS)), st.integers(0, 2000), st.integers(1, 30), st.text(max_size=6))
def test_any_damage_to_a_good_file(name: str, at: int, length: int, instead: str) -> None:
    """A good file with a piece cut out or replaced."""
    text = GENERATIONS[name]
    at %= len(text)
    _read(text[:at] + instead + text[at + length :])
