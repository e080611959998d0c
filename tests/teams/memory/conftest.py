"""The model of these tests."""

from __future__ import annotations

import pytest

import providers
from tests.teams.memory.noting import MODEL, Noting


@pytest.fixture
def model() -> Noting:
    """The model that all roles of a test have."""
    noting = Noting()
    providers.register(MODEL, lambda: noting)
    return noting
