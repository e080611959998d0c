"""Programs of npm packages that tests use as foreign counterparts, where they are installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NODE_MODULES = "SHOAL_TEST_NODE_MODULES"


def npm_program(package: str, program: str) -> str:
    """The path of a package's program; skips the test, saying what to install, where the package is not there."""
    folders = [os.environ.get(NODE_MODULES, ""), str(Path.home() / ".cache" / "shoal-tests" / "node_modules")]
    for folder in filter(None, folders):
        command = Path(folder) / ".bin" / program
        if (Path(folder) / package).is_dir() and command.exists():
            return str(command)
    pytest.skip(f"npm package {package} is not there: install it and set {NODE_MODULES} to its node_modules folder")
