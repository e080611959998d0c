"""The reliability page names tests: they have to exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`((?:tests|queue_backends|providers)/[\w/]+\.py)(?:::(test_\w+))?`")


def test_every_test_that_the_page_names_exists() -> None:
    """Files, and functions in them."""
    named = NAMED.findall((ROOT / "docs" / "reliability.md").read_text())
    missing = [
        f"{path}::{function}"
        for path, function in named
        if not (ROOT / path).is_file() or (function and f"def {function}(" not in (ROOT / path).read_text())
    ]
    assert len(named) > 40
    assert not missing
