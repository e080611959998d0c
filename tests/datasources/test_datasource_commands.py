"""`shoal datasource`, as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.cli_harness import Shoal
from tests.cli.conftest import _own_place, shoal

__all__ = ["_own_place", "shoal"]


@pytest.fixture
def manual(tmp_path: Path) -> Path:
    """A folder with two pages."""
    folder = tmp_path / "manual"
    folder.mkdir()
    (folder / "pumps.md").write_text("# Pumps\n\nPumps move water.")
    (folder / "valves.md").write_text("# Valves\n\nValves shut pipes.")
    return folder


@pytest.fixture
def filled(shoal: Shoal, manual: Path) -> Path:
    """The folder, taken into the data source `machines`."""
    assert shoal("datasource", "create", "machines", "--embed-model", "lexical").code == 0
    assert shoal("datasource", "ingest", "machines", str(manual)).code == 0
    return manual


def test_a_folder_is_taken_in_and_asked(shoal: Shoal, filled: Path) -> None:
    """From nothing to an answer in three commands."""
    asked = shoal("datasource", "query", "machines", "what moves water?", "-n", "1")
    assert asked.code == 0
    assert asked.out.splitlines()[0].startswith("1. manual/pumps.md")
    assert "Pumps move water." in asked.out
    passage = json.loads(shoal("datasource", "query", "machines", "valves", "--json").out.splitlines()[0])
    assert passage["metadata"]["document"] == "manual/valves.md"
    listed = shoal("datasource", "documents", "machines", "--json").out.splitlines()
    assert [json.loads(line)["id"] for line in listed] == ["manual/pumps.md", "manual/valves.md"]
    assert "lexical" in shoal("datasource", "list").out


def test_doing_it_again(shoal: Shoal, filled: Path) -> None:
    """Unchanged files are skipped, changed ones replaced, and with --prune those that are gone go."""
    (filled / "valves.md").unlink()
    (filled / "pumps.md").write_text("# Pumps\n\nPumps are red.")
    again = shoal("datasource", "ingest", "machines", str(filled))
    assert again.out == "0 added, 1 replaced, 0 unchanged, 1 passages stored\n"
    pruned = shoal("datasource", "ingest", "machines", str(filled), "--prune", "--json")
    report = json.loads(pruned.out)
    assert (report["unchanged"], report["deleted"], report["skipped"]) == (1, 1, {})


def test_files_that_cannot_be_read(shoal: Shoal, filled: Path) -> None:
    """They are named, the others are taken in, and the exit code tells."""
    (filled / "broken.json").write_text("{")
    (filled / "new.md").write_text("new")
    done = shoal("datasource", "ingest", "machines", str(filled))
    assert done.code == 1
    assert done.out.startswith("1 added, 0 replaced, 2 unchanged")
    assert "broken.json: skipped: it cannot be read as json" in done.err


def test_documents_and_data_sources_go(shoal: Shoal, filled: Path) -> None:
    """One document, all of them, and the whole data source with its passages."""
    assert shoal("datasource", "remove", "machines", "manual/pumps.md").out == "1 documents are removed\n"
    assert shoal("datasource", "remove", "machines", "manual/pumps.md").code == 4
    assert shoal("datasource", "remove", "machines", "--all").out == "1 documents are removed\n"
    assert shoal("datasource", "documents", "machines").err.startswith("no documents")
    assert shoal("datasource", "delete", "machines").code == 0
    gone = shoal("datasource", "query", "machines", "water")
    assert gone.code == 4
    assert gone.err == "error: datasource not found: 'machines'\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("ingest", "machines", "nothing-here"), 1, "nothing-here does not exist"),
        (("ingest", "nobody", "."), 4, "datasource not found: 'nobody'"),
        (("remove", "machines"), 2, "name the documents, or say --all"),
        (("ingest", "machines", "manual/pumps.md", "--prune"), 2, "--prune needs a folder"),
        (("create", "x", "--chunk-tokens", "1"), 2, "chunk_tokens is 1: use 32 to 4000"),
        (("create", "x", "--embed-key-env", "not a name"), 2, "give the name, never the value"),
    ],
)
def test_mistakes(shoal: Shoal, filled: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    """One line that says what was wrong."""
    done = shoal("datasource", *arguments)
    assert (done.code, said in done.err) == (code, True), done
