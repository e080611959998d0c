"""Names of artifacts, and the places that they get."""

from __future__ import annotations

import pytest

from queue_backends import Task
from worker.artifacts import ArtifactsFailed
from worker.artifacts.names import LONGEST_BYTES, checked_name, place_of
from worker.teams.marks import Marks


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "../a", "a\\b", "a\nb", "a\0b", " a", "a ", "a" * (LONGEST_BYTES + 1)]
)
def test_names_that_no_file_may_have(name: str) -> None:
    """Proves that none leads out of a folder, hides, or cannot be shown."""
    with pytest.raises(ArtifactsFailed, match="is no name for an artifact"):
        checked_name(name)


@pytest.mark.parametrize("name", ["report.md", "Übersicht 2.pdf", "a..b", "a" * LONGEST_BYTES])
def test_names_that_are_fine(name: str) -> None:
    """Proves that people's names are taken as they are."""
    assert checked_name(name) == name


def test_a_step_has_arks_place_and_delegated_tasks_their_own() -> None:
    """Proves `<run>/<step>`, that a delegated task of the step overwrites nothing, and that odd names stay one part."""
    marks = Marks(run="r-1", step="draft", plan="p", team="t", role="a")
    assert place_of(Task(id="7", prompt=""), marks, for_ark=False) == "r-1/draft"
    deeper = Marks(run="r-1", step="draft", plan="p", team="t", role="a", depth=1)
    assert place_of(Task(id="7", prompt=""), deeper, for_ark=False) == "r-1/draft/7"
    odd = Marks(run="../..", step="a/b c", plan="p", team="t", role="a")
    parts = place_of(Task(id="7", prompt=""), odd, for_ark=False).split("/")
    assert len(parts) == 2
    assert all(part.isalnum() for part in parts)
