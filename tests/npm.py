"""Programs of npm packages that tests use as foreign counterparts, where they are installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NODE_MODULES = "SHOAL_TEST_NODE_MODULES"


def npm_program(package: str, program: str) -> str:
    """The path of a package's program; skips the test, saying what to install, where the package is not there."""
    for folder in _folders():
        command = folder / ".bin" / program
        if (folder / package).is_dir() and command.exists():
            return str(command)
    raise _missing(package)


def npm_file(package: str, path: str) -> Path:
    """A file of a package; skips the test, saying what to install, where the package is not there."""
    for folder in _folders():
        if (folder / package / path).is_file():
            return folder / package / path
    raise _missing(package)


def _folders() -> list[Path]:
    named = os.environ.get(NODE_MODULES, "")
    return [*([Path(named)] if named else []), Path.home() / ".cache" / "shoal-tests" / "node_modules"]


def _missing(package: str) -> BaseException:
    return pytest.skip.Exception(
        f"npm package {package} is not there: install it and set {NODE_MODULES} to its node_modules folder"
    )
