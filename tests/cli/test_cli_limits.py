"""`shoal limits`, and tasks that wait for room."""

from __future__ import annotations

import json
from pathlib import Path

from msgspec.structs import replace

from queue_backends import Backend, CallOutcome, TokenUsage
from queue_backends.interfaces import Retry
from tests.accounting.calls import call_record, model_call, used
from tests.cli.cli_harness import Shoal, WithBackend, pull_one
from worker.call_estimates import CallEstimates
from worker.journal import AttemptEnded, Journal
from worker.metrics import Metrics
from worker.rate_limits.gate import RateLimitGate
from worker.rate_limits.rules import read_limits

LIMITS = {"claude": {"where": {"provider": "anthropic"}, "requests_per_min": 600, "concurrent": 4}}


def declare(folder: Path) -> None:
    """A shoal.yaml with one limit."""
    (folder / "shoal.yaml").write_text(json.dumps({"limits": LIMITS, "agent": {"model": "mock"}}))


def call_some(with_backend: WithBackend, *, refused: bool = False) -> None:
    """Let a worker make two calls, of which one goes on."""

    async def work(backend: Backend) -> None:
        gate = RateLimitGate(backend.state, read_limits(LIMITS), estimates=CallEstimates(), metrics=Metrics())
        async with gate.kept():
            for number in range(2):
                await gate.enter(model_call(f"t{number}", provider="anthropic", api_key_env="TEAM_KEY"))
            if refused:
                call = model_call("t0", provider="anthropic", api_key_env="TEAM_KEY")
                record = replace(call_record(CallOutcome.FAILED), rate_limited=True, retry_after_s=300.0)
                await gate.leave(call, record, used(call, TokenUsage()))

    with_backend(work)


def test_limits_and_their_use(shoal: Shoal, with_backend: WithBackend, tmp_path: Path) -> None:
    """Each limit, each account by the name of its key, each kind with what is used and what is allowed."""
    assert "no rate limits" in shoal("limits").err
    declare(tmp_path)
    assert "(no calls yet)" in shoal("limits").out
    call_some(with_backend)
    table = shoal("limits", "list").out
    assert "anthropic:TEAM_KEY" in table
    assert table.split("requests/min")[1].split()[:3] == ["2", "600", "0%"]
    assert "calls at once" in table
    assert shoal("limits", "list", "--json").out == shoal("limits", "--json").out
    (use,) = [json.loads(line) for line in shoal("limits", "--json").out.splitlines()]
    assert (use["limit"], use["account"], use["granted"], use["refused"]) == ("claude", "anthropic:TEAM_KEY", 2, 0)
    assert {kind["kind"]: kind["limit"] for kind in use["uses"]} == {"requests": 600.0, "concurrent": 4}


def test_a_closed_account_is_shown(shoal: Shoal, with_backend: WithBackend, tmp_path: Path) -> None:
    """The vendor refused calls: the table says for how long nobody calls."""
    declare(tmp_path)
    call_some(with_backend, refused=True)
    assert "closed for" in shoal("limits").out


def test_limits_are_set_and_unset(shoal: Shoal, tmp_path: Path) -> None:
    """Live, over those of the file; what cannot be a limit is refused with the reason."""
    declare(tmp_path)
    arguments = ("--where", "provider=openai", "--requests", "60", "--tokens", "90000", "--weight", "acme=3")
    assert shoal("limits", "set", "gpt", *arguments, "--per", "key", "--per", "model").out == "limit gpt is set\n"
    stored = json.loads(shoal("settings", "get", "limits.gpt").out)
    assert stored == {
        "requests_per_min": 60.0,
        "tokens_per_min": 90000.0,
        "where": {"provider": "openai"},
        "per": ["key", "model"],
        "weights": {"acme": 3.0},
    }
    assert "gpt" in shoal("limits").out
    refused = shoal("limits", "set", "gpt", "--where", "color=red")
    assert (refused.code, "color is not known" in refused.err) == (2, True)
    assert shoal("limits", "set", "gpt", "--weight", "acme").code == 2
    assert shoal("limits", "unset", "gpt").code == 0
    assert shoal("limits", "unset", "gpt").code == 4


def test_a_postponed_task_says_what_it_waits_for(shoal: Shoal, with_backend: WithBackend) -> None:
    """`tasks show` has the reason, and the timeline has when."""
    why = "rate limit 'claude' of anthropic: no room for a model call at present"

    async def postpone(backend: Backend) -> str:
        task_id = await backend.queue.submit(model_call("x").task)
        delivery = await pull_one(backend)
        entry = AttemptEnded(worker="w", attempt=0, how="postponed", error=why, retry_in_s=900.0, since=1.0)
        records = Journal(unfinished_s=60.0, finished_s=60.0).records(task_id, entry)
        retry = Retry(delivery=delivery, error=why, retry_in_s=900.0, counts=False, records=records)
        assert await backend.commit([retry]) == []
        return task_id

    task_id = with_backend(postpone)
    shown = shoal("tasks", "show", task_id).out
    assert "delayed" in shown
    assert f"postponed: {why}" in shown
    assert "again in 15 min" in shown
