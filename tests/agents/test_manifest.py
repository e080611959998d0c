"""YAML files of objects that nobody should have written, or that others have written."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from worker import Fleet, connect
from worker.agents.declarations import Declarations
from worker.agents.manifest import apply_documents, read_documents
from worker.definitions import Definitions
from worker.errors import WorkerError
from worker.settings.prompt_file import MOST_BYTES

AGENT = "kind: Agent\nslug: a\nmodel: m\n"


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """A fleet where nothing is declared."""
    async with connect("memory://") as connected:
        yield connected


def written(folder: Path, text: str) -> Path:
    """A file with these documents."""
    path = folder / "objects.yaml"
    path.write_text(text)
    return path


def bomb() -> str:
    """A few lines that stand for a billion items."""
    lines = [f"  x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, 9)]
    return "\n".join([f"{AGENT}settings:", "  x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]", *lines])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"{AGENT}settings: {'{a: ' * 100}1{'}' * 100}", "levels deep"),
        (f"{AGENT}settings: {'{a: ' * 5000}1{'}' * 5000}", "nested too deeply"),
        (f"{AGENT}settings: &a {{x: *a}}", "levels deep"),
        (bomb(), "items"),
        (f"{AGENT}description: 2024-13-45", "month"),
        (f"{AGENT}settings: {{max_tokens: {'9' * 5000}}}", "digits"),
        ("kind: Agent\nslug: a\nmodel: !!python/name:os.system x", "constructor"),
        (f"{AGENT}system_prompt_file: [a]", "name of a file"),
        (f"{AGENT}system_prompt_file: ''", "name of a file"),
    ],
)
def test_a_file_that_cannot_be_is_refused_in_one_line(tmp_path: Path, text: str, why: str) -> None:
    """With its name and the reason, within the memory that the file itself has."""
    path = written(tmp_path, text)
    with pytest.raises(WorkerError, match=why) as refused:
        read_documents(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_prompt_is_read_from_near_the_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the file or in the folder that one is in; by no path and no link from anywhere else."""
    here, far = tmp_path / "repository" / "agents", tmp_path / "home"
    for folder in (here, here.parent / "prompts", far):
        folder.mkdir(parents=True)
    (far / "secret").write_text("PASSWORD")
    (here / "link").symlink_to(far / "secret")
    (here / "beside.md").write_text("Beside.\n")
    (here.parent / "prompts" / "p.md").write_text("Of the repository.\n")
    monkeypatch.chdir(here.parent)
    for name, text in (("beside.md", "Beside."), ("../prompts/p.md", "Of the repository.")):
        [document] = read_documents(written(here, f"{AGENT}system_prompt_file: {name}"))
        assert document.fields["system_prompt"] == text
    for name in ("../../home/secret", str(far / "secret"), "link", "/etc/passwd", "~/x"):
        with pytest.raises(WorkerError, match="outside of the file's folder"):
            read_documents(written(here, f"{AGENT}system_prompt_file: {name}"))


def test_a_prompt_is_a_file_of_a_bounded_size(tmp_path: Path) -> None:
    """Neither a pipe, which would be waited for, nor a folder, nor a file without an end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "large").write_bytes(b"x" * (MOST_BYTES + 1))
    for name, why in (("pipe", "no regular file"), ("folder", "no regular file"), ("large", "bytes")):
        with pytest.raises(WorkerError, match=why):
            read_documents(written(tmp_path, f"{AGENT}system_prompt_file: {name}"))


async def test_two_documents_about_one_object_are_refused(fleet: Fleet, tmp_path: Path) -> None:
    """They would overwrite each other each time; nothing is written."""
    path = written(tmp_path, f"{AGENT}---\nkind: Agent\nslug: b\nmodel: m\n---\nkind: agent\nslug: a\nmodel: other\n")
    declared = Declarations(Definitions(fleet.backend.state), is_followed=False)
    with pytest.raises(WorkerError, match=r"document 3: agent 'a' is there twice, first in .*document 1"):
        await apply_documents(read_documents(path), declared)
    assert (await fleet.agents.list()).total == 0


async def test_a_large_file_is_applied_with_one_reading(fleet: Fleet, tmp_path: Path) -> None:
    """What is declared is read once, however many documents there are; later ones may refer to earlier ones."""
    agents = "".join(f"---\nkind: Agent\nslug: a{n}\napp: desk\n" for n in range(30))
    path = written(tmp_path, f"kind: Llm\nslug: m\nmodel: m\n---\nkind: App\nslug: desk\nllms: [m]\n{agents}")
    readings = 0

    class Counted(Definitions):
        async def load(self) -> None:
            nonlocal readings
            readings += 1
            await super().load()

    definitions = Counted(fleet.backend.state)
    for outcome in ("created", "unchanged"):
        applied = await apply_documents(read_documents(path), Declarations(definitions, is_followed=False))
        assert {each.outcome for each in applied} == {outcome}
        assert len(applied) == 32
    assert readings == 2
