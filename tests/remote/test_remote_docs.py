"""docs/remote-providers.md shows the example as it is, and the example is short."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "examples" / "remote_provider.py").read_text(encoding="utf-8")


def test_the_documentation_shows_the_example() -> None:
    """What is run by other tests is what people read."""
    assert EXAMPLE.rstrip() in (ROOT / "docs" / "remote-providers.md").read_text(encoding="utf-8")


def test_the_example_has_at_most_forty_lines() -> None:
    """As the documentation says."""
    assert len(EXAMPLE.splitlines()) <= 40
