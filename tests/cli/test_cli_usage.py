"""shoal usage and shoal budgets: against a real server."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from queue_backends import Backend, CallOutcome, TokenUsage, UsageRecord
from tests.cli.cli_harness import Shoal, WithBackend
from worker.usage import UsageLedger

DAY_S = 86_400


def _record(number: int, **changes: object) -> UsageRecord:
    values: dict[str, object] = {
        "id": f"t{number}:0:0",
        "task_id": f"t{number}",
        "provider": "p",
        "model": "m",
        "usage": TokenUsage(input_tokens=1000, output_tokens=10),
        "outcome": CallOutcome.COMPLETED,
        "started_at": time.time(),
        "duration_ms": 5,
        "cost_usd": 0.5,
        **changes,
    }
    return UsageRecord(**values)  # type: ignore[arg-type] # its fields by name


@pytest.fixture(autouse=True)
def _used(with_backend: WithBackend) -> None:
    """Three calls: two agents' of today, one's of ten days ago."""
    old = time.time() - 10 * DAY_S
    records = [
        _record(1, agent="a"),
        _record(2, agent="b", model="n", cost_usd=2.0),
        _record(3, agent="a", started_at=old),
    ]

    async def write(backend: Backend) -> None:
        ledger = UsageLedger()
        await backend.state.append_once([ledger.log_record(record) for record in records])

    with_backend(write)


def test_usage_is_grouped_by_several_fields_over_a_span(shoal: Shoal) -> None:
    """Only calls of the span count, the dearest group is first."""
    outcome = shoal("usage", "--by", "agent,model", "--since", "7d", "--json")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [(row["agent"], row["model"], row["calls"], row["cost_usd"]) for row in rows] == [
        ("b", "p/n", 1, 2.0),
        ("a", "p/m", 1, 0.5),
    ]
    table = shoal("usage", "--by", "agent", "--where", "model=m")
    head, row = (line.split() for line in table.out.splitlines())
    assert head == ["AGENT", "CALLS", "IN", "CACHED", "OUT", "REASONING", "TIME", "COST"]
    assert row == ["a", "2", "2", "000", "0", "20", "0", "0.0", "s", "$1.00"]


def test_usage_is_drawn_as_bars(shoal: Shoal) -> None:
    """The dearest has the longest bar, and each its cost."""
    lines = shoal("usage", "--by", "agent", "--plot").out.splitlines()
    assert [(line.split()[0], line.split()[-1]) for line in lines] == [("b", "$2.00"), ("a", "$1.00")]
    assert len(lines[0]) > len(lines[1])


def test_wrong_fields_are_refused_with_those_there_are(shoal: Shoal) -> None:
    """The message lists what can be grouped by, or asked for."""
    assert "is none of hour, day, month" in shoal("usage", "--by", "colour").err
    assert "fields are agent, model" in shoal("usage", "--where", "colour=red").err
    for text in ("yesterday", "2026", "nan", "-5"):
        assert "is no time" in shoal("usage", f"--since={text}").err


def test_records_are_exported_and_streamed(shoal: Shoal, tmp_path: Path) -> None:
    """The file's name tells the format; a stream goes on where it was."""
    assert shoal("usage", "export", "--since", "7d", "--output", "u.csv").code == 0
    assert len((tmp_path / "u.csv").read_text().splitlines()) == 3
    lines = shoal("usage", "export", "--where", "agent=b").out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["t2:0:0"]
    assert "3 records carried over" in shoal("usage", "stream", f"file://{tmp_path}/s.jsonl", "--once").err
    assert "0 records carried over" in shoal("usage", "stream", f"file://{tmp_path}/s.jsonl", "--once").err
    assert shoal("usage", "stream", "ftp://x", "--once").code == 2


def test_budgets_are_rebuilt_from_the_log(shoal: Shoal) -> None:
    """Whatever was charged; a budget that is not there cannot be."""
    assert shoal("budgets", "set", "all", "--scope", "fleet", "--usd", "5").code == 0
    nothing = shoal("budgets", "rebuild")
    assert (nothing.code, nothing.out) == (0, "")
    assert nothing.err.startswith("no account of these budgets")
    assert shoal("budgets", "rebuild", "nobody").code == 4


def test_a_budget_is_set_shown_and_taken_away(shoal: Shoal) -> None:
    """What was set is listed with its limit; a budget that cannot be is refused in one line."""
    assert shoal("budgets", "list").err.startswith("no budgets")
    outcome = shoal(
        "budgets", "set", "acme", "--scope", "tenant", "--period", "month", "--usd", "5", "--match", "acme*"
    )
    assert (outcome.code, outcome.out) == (0, "budget acme is set\n")
    assert shoal("budgets", "list").out.split("\n")[1].split() == [
        "acme",
        "tenant",
        "acme*",
        "month",
        "0",
        "$5.00",
        "0%",
    ]
    assert shoal("budgets", "list", "acme").out == shoal("budgets", "list").out
    assert shoal("budgets", "list", "nobody").code == 4
    refused = shoal("budgets", "set", "b", "--scope", "agent")
    assert refused.code == 2
    assert "no limit is given: set tokens, or usd, or both" in refused.err
    assert shoal("budgets", "unset", "acme").code == 0
    assert shoal("budgets", "unset", "acme").code == 4
