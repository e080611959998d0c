"""A plan, its provider and its tools for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.loop_policy.harness import Ground


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """Where the test plays."""
    return Ground(tmp_path)
