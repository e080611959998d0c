"""A file of environment variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.errors import BadSetting
from worker.settings.env_file import read_env_file


def test_lines_are_variables(tmp_path: Path) -> None:
    """As a shell or a container's secret has them; nothing in a value is expanded."""
    path = tmp_path / "env"
    path.write_text("# keys\n\nA=1\nexport B='two words'\nC=\"x=y\"\nD = $A#no comment\nE=\nF='\n")
    assert read_env_file(path) == {"A": "1", "B": "two words", "C": "x=y", "D": "$A#no comment", "E": "", "F": "'"}


@pytest.mark.parametrize("line", ["sk-secret-123", "1A=2", "=x", "A B=c"])
def test_a_line_that_is_none_is_named_and_not_shown(tmp_path: Path, line: str) -> None:
    """It may hold a secret."""
    path = tmp_path / "env"
    path.write_text(f"A=1\n{line}\n")
    with pytest.raises(BadSetting, match=r"env: line 2 is no variable: write NAME=value$"):
        read_env_file(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """With the reason."""
    with pytest.raises(BadSetting, match=r"cannot read .*nosuch: No such file"):
        read_env_file(tmp_path / "nosuch")
    (tmp_path / "binary").write_bytes(b"A=\xff")
    with pytest.raises(BadSetting, match="it is no UTF-8 text"):
        read_env_file(tmp_path / "binary")
