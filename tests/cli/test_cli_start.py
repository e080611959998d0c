"""The command line as a whole: quick to start, complete in its help, lazy in its imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.cli_harness import Shoal
from worker.cli.app import COMMANDS, app

ROOT = Path(__file__).parents[2]
HEAVY = ("redis", "rich", "yaml", "httpx", "aiohttp", "structlog", "msgspec", "opentelemetry", "mcp", "queue_backends")


def test_help_imports_nothing_heavy() -> None:
    """`shoal --help` loads click and the table of commands alone, which is what keeps it quick."""
    program = "import sys; from worker.cli.app import run; run(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    )
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert loaded.isdisjoint(HEAVY)
    assert all(name in done.stdout for name in COMMANDS)


def test_version_is_one_line(shoal: Shoal) -> None:
    """`shoal 1.2.3`."""
    outcome = shoal("--version")
    assert outcome.code == 0
    assert outcome.out.startswith("shoal ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_the_shared_options(shoal: Shoal, name: str) -> None:
    """Also the commands inside groups; each shows examples."""
    command = app.get_command(app.make_context("shoal", ["--help"], resilient_parsing=True), name)
    inner = list(getattr(command, "commands", {})) or [""]
    for part in inner:
        outcome = shoal(*filter(None, (name, part)), "--help")
        assert outcome.code == 0
        assert "Examples:" in outcome.out
        assert {"--queue", "--config", "--json", "--debug"} <= set(outcome.out.split())


def test_the_documentation_names_every_command() -> None:
    """docs/cli.md has a heading for each."""
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert all(f"\n## shoal {name}" in text for name in COMMANDS)


def test_a_group_without_a_command_shows_its_help(shoal: Shoal) -> None:
    """As help, not as the text of an error on one line; and it is an error all the same."""
    outcome = shoal("tasks")
    assert outcome.code == 2
    assert outcome.err.startswith("Usage: shoal tasks")
    assert "\n  show " in outcome.err
