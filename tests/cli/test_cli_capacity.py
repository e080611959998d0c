"""capacity: what a number of tasks needs, without any queue."""

from __future__ import annotations

import json

import pytest

from tests.cli.cli_harness import Shoal


def test_capacity_says_what_is_needed_and_why(shoal: Shoal) -> None:
    """Processes and partitions with what binds them, and when the costs were measured."""
    outcome = shoal("capacity", "--tasks", "100000", "--task-time", "5m", "--waiting", "50000")

    assert outcome.code == 0
    assert "worker processes  " in outcome.out
    assert "Redis partitions  " in outcome.out
    assert "(bound by slots)" in outcome.out
    assert "(bound by memory)" in outcome.out
    assert "costs measured 20" in outcome.err


def test_capacity_as_json_has_the_load_that_was_meant(shoal: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags, and the retention of the settings."""
    monkeypatch.setenv("SHOAL_RESULT_RETENTION_SECONDS", "600")
    flags = ("--chunks-per-s", "5", "--usage-retention", "0", "--json")
    found = json.loads(shoal("capacity", "--tasks", "1000", *flags).out)

    assert (found["load"]["tasks"], found["load"]["chunks_per_s"]) == (1000, 5)
    assert found["load"]["result_retention_s"] == 600
    assert found["need"]["processes"] >= 10
    assert found["need"]["memory_gib"]["results"] > 0
    assert found["need"]["memory_gib"]["usage records"] == 0


def test_capacity_keeps_usage_records_as_long_as_configured(shoal: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the flag; a tenth of the days is a tenth of the memory."""
    by_default = json.loads(shoal("capacity", "--tasks", "1000", "--json").out)
    monkeypatch.setenv("SHOAL_USAGE_RETENTION_DAYS", "9")
    shorter = json.loads(shoal("capacity", "--tasks", "1000", "--json").out)

    assert (by_default["load"]["usage_retention_s"], shorter["load"]["usage_retention_s"]) == (90 * 86400, 9 * 86400)
    whole = by_default["need"]["memory_gib"]["usage records"]
    assert shorter["need"]["memory_gib"]["usage records"] == pytest.approx(whole / 10)


def test_capacity_needs_no_queue(shoal: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is planned with before there is any."""
    monkeypatch.setenv("TASK_QUEUE_URL", "redis://127.0.0.1:1")
    assert shoal("capacity", "--tasks", "10").code == 0


def test_capacity_of_nothing_is_wrong_usage(shoal: Shoal) -> None:
    """Exit code 2, and the flag by name."""
    outcome = shoal("capacity", "--tasks", "0")
    assert outcome.code == 2
    assert "--tasks" in outcome.err
