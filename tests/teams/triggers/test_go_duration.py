"""Durations as Go writes them, which webhooks' callers send and are answered with."""

from __future__ import annotations

import pytest

from worker.teams.triggers.go_duration import as_go_duration, parse_go_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30.0), ("1m30s", 90.0), ("1.5h", 5400.0), ("250ms", 0.25), (".5s", 0.5), ("2m0s", 120.0)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    """As `time.ParseDuration` reads them."""
    assert parse_go_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "1m 30s", "-5s", "5 minutes", "1d", "\u0661s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """With the forms that are allowed."""
    with pytest.raises(ValueError, match="1m30s"):
        parse_go_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(60.0, "1m0s"), (30.0, "30s"), (90.0, "1m30s"), (0.05, "50ms"), (7200.0, "2h0m0s"), (1.5, "1.5s")],
)
def test_durations_are_written(seconds: float, text: str) -> None:
    """As Go prints them."""
    assert as_go_duration(seconds) == text
