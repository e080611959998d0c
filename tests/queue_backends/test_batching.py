"""Writes of bounded size."""

from __future__ import annotations

import pytest

from queue_backends import batching
from queue_backends.batching import batches


@pytest.mark.parametrize(
    ("sizes", "cut"),
    [
        ([], []),
        ([1, 1, 1], [[1, 1, 1]]),
        ([4, 4, 4], [[4, 4], [4]]),
        ([50, 1, 1], [[50], [1, 1]]),
        ([1, 50, 1], [[1], [50], [1]]),
        ([0] * 7, [[0] * 5, [0] * 2]),
    ],
)
def test_many_small_things_go_together_and_large_ones_apart(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], cut: list[list[int]]
) -> None:
    """Order is kept, nothing is lost, and only an item that is too large by itself exceeds the bound."""
    monkeypatch.setattr(batching, "MOST_CHARS", 10)
    monkeypatch.setattr(batching, "MOST_ITEMS", 5)
    assert [list(batch) for batch in batches(sizes, int)] == cut
