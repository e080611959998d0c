"""submit, tasks, dead, stats, pause, resume: against a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from queue_backends import Backend, TaskResult
from tests.cli.cli_harness import Shoal, WithBackend, pull_one


def test_a_submitted_task_has_all_that_was_said_of_it(shoal: Shoal, with_backend: WithBackend) -> None:
    """The id is printed alone; a worker then gets every field."""
    outcome = shoal(
        "submit", "Say hi", "--agent", "poet", "--priority", "high", "--meta", "team=ops", "--tenant", "acme",
        "--session", "s1", "--model", "gpt-4o", "--deadline", "1h",
    )  # fmt: skip
    assert outcome.code == 0
    task = with_backend(pull_one).task
    assert outcome.out == f"{task.id}\n"
    assert (task.prompt, task.agent, task.priority, task.tenant) == ("Say hi", "poet", "high", "acme")
    assert (task.meta, task.session_id, task.overrides) == ({"team": "ops"}, "s1", {"model": "gpt-4o"})
    assert task.deadline is not None


def test_the_same_idempotency_key_gives_the_same_task(shoal: Shoal) -> None:
    """The second submit adds nothing."""
    first = shoal("submit", "once", "--idempotency-key", "k")
    assert shoal("submit", "once", "--idempotency-key", "k").out == first.out
    assert json.loads(shoal("stats", "--json").out)["ready"] == 1


def test_a_delayed_task_waits_and_shows_when(shoal: Shoal) -> None:
    """--delay and --at put it among the delayed ones."""
    task_id = shoal("submit", "later", "--delay", "5m").out.strip()
    shoal("submit", "much later", "--at", "2099-01-01T00:00:00Z")
    rows = [json.loads(line) for line in shoal("tasks", "list", "--json").out.splitlines()]
    assert [row["state"] for row in rows] == ["delayed", "delayed"]
    shown = shoal("tasks", "show", task_id)
    assert shown.code == 0
    assert "delayed" in shown.out
    assert "due " in shown.out


def test_a_file_of_lines_becomes_tasks(shoal: Shoal, tmp_path: Path, with_backend: WithBackend) -> None:
    """A JSON text is a prompt, an object a task; flags fill what a line leaves open."""
    path = tmp_path / "many.jsonl"
    path.write_text('"one"\n\n{"prompt": "two", "agent": "poet", "meta": {"n": "2"}}\n')
    outcome = shoal("submit", "--file", str(path), "--agent", "writer", "--meta", "run=1")
    assert outcome.code == 0
    assert len(outcome.out.split()) == 2

    async def pull(backend: Backend) -> list[Any]:
        return [delivery.task for delivery in await backend.queue.pull(5, 5.0)]

    one, two = with_backend(pull)
    assert (one.prompt, one.agent, one.meta) == ("one", "writer", {"run": "1"})
    assert (two.prompt, two.agent, two.meta) == ("two", "poet", {"run": "1", "n": "2"})


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2 is no JSON"),
        ("3", "line 2: expected a text or an object"),
        ('{"promt": "x"}', "line 2: unknown field 'promt'"),
        ('{"prompt": ""}', "line 2: prompt is empty"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_added(shoal: Shoal, tmp_path: Path, line: str, complaint: str) -> None:
    """All lines are read before the first task is submitted."""
    path = tmp_path / "many.jsonl"
    path.write_text(f'"fine"\n{line}\n')
    outcome = shoal("submit", "--file", str(path))
    assert outcome.code == 2
    assert complaint in outcome.err
    assert json.loads(shoal("stats", "--json").out)["ready"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("submit",),
        ("submit", "x", "--delay", "5m", "--at", "17:00"),
        ("submit", "x", "--delay", "soon"),
        ("submit", "x", "--meta", "nokey"),
        ("submit", " "),
        ("dead", "requeue"),
        ("dead", "purge", "x", "--all"),
        ("nonsense",),
        ("tasks", "list", "--nonsense"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(shoal: Shoal, arguments: tuple[str, ...]) -> None:
    """No traceback, no page of help."""
    outcome = shoal(*arguments)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.splitlines()) == 1


def test_cancel_ends_waiting_tasks_and_names_unknown_ones(shoal: Shoal) -> None:
    """Exit code 4 if one of them does not exist; the others are cancelled all the same."""
    task_id = shoal("submit", "x").out.strip()
    outcome = shoal("tasks", "cancel", task_id, "1-1")
    assert outcome.code == 4
    assert outcome.out.splitlines() == [f"{task_id}  cancelled", "1-1  no such task"]
    assert json.loads(shoal("tasks", "show", task_id, "--json").out)["state"] == "cancelled"


@pytest.mark.parametrize("arguments", [("tasks", "show", "1-1"), ("tail", "1-1")])
def test_an_unknown_task_is_exit_code_4(shoal: Shoal, arguments: tuple[str, ...]) -> None:
    """And says why it may be unknown."""
    outcome = shoal(*arguments)
    assert outcome.code == 4
    assert outcome.err == "error: no task 1-1: it was never submitted here, or ended too long ago\n"


def test_dead_letters_are_listed_requeued_and_purged(shoal: Shoal, with_backend: WithBackend) -> None:
    """A letter comes back as a fresh task with the same id, or goes for good."""
    ids = [shoal("submit", text).out.strip() for text in ("first", "second")]

    async def kill_both(backend: Backend) -> None:
        for delivery in await backend.queue.pull(2, 5.0):
            await backend.queue.nack(delivery, "it broke", dead=True)

    with_backend(kill_both)
    letters = [json.loads(line) for line in shoal("dead", "list", "--json").out.splitlines()]
    assert sorted(letter["task_id"] for letter in letters) == ids
    assert "it broke" in shoal("dead", "list").out
    back = shoal("dead", "requeue", letters[0]["id"])
    assert (back.code, back.out) == (0, "1 dead letter requeued\n")
    assert shoal("dead", "requeue", "9-9").code == 4
    assert with_backend(pull_one).task.id == letters[0]["task_id"]
    assert shoal("dead", "purge", "--all", "--yes").out == "1 dead letter purged\n"
    assert shoal("dead", "list").err == "no dead letters\n"


def test_pause_and_resume(shoal: Shoal) -> None:
    """stats tells that the queue is paused, and how to go on."""
    shoal("submit", "x")
    assert shoal("pause").out == "paused (ready: 1; running, they go on: 0)\n"
    assert "shoal resume" in shoal("stats").out
    assert shoal("resume").out == "resumed (ready: 1; running: 0)\n"
    assert json.loads(shoal("stats", "--json").out)["paused"] is False


def test_a_ready_task_tells_why_it_waits(shoal: Shoal) -> None:
    """The question of every operator: why does it not run?"""
    task_id = shoal("submit", "x").out.strip()
    assert "is a worker up?" in shoal("tasks", "show", task_id).out
    shoal("pause")
    assert "the queue is paused" in shoal("tasks", "show", task_id).out


def test_wait_prints_the_answer_alone_on_stdout(shoal: Shoal, with_backend: WithBackend) -> None:
    """What a pipe gets is the output; figures go to stderr. A time-out leaves the task alone."""
    outcome = shoal("submit", "x", "--wait", "--timeout", "0.05", "--idempotency-key", "k")
    assert outcome.code == 1
    assert "the task goes on" in outcome.err

    async def answer(backend: Backend) -> None:
        delivery = await pull_one(backend)
        await backend.queue.ack(delivery, TaskResult(task_id=delivery.task.id, output="the answer"))

    with_backend(answer)
    again = shoal("submit", "x", "--wait", "--idempotency-key", "k")
    assert (again.code, again.out) == (0, "the answer\n")


def test_an_unreachable_queue_is_exit_code_3(shoal: Shoal) -> None:
    """One line, no traceback."""
    outcome = shoal("stats", "--queue", "redis://127.0.0.1:1")
    assert outcome.code == 3
    assert len(outcome.err.splitlines()) == 1


def test_a_wrong_setting_is_exit_code_2(shoal: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of the settings."""
    monkeypatch.setenv("AGENT_MAX_TOKENS", "0")
    outcome = shoal("stats")
    assert (outcome.code, outcome.err) == (2, "error: AGENT_MAX_TOKENS must be between 1 and 200000, got 0\n")


def test_debug_shows_the_traceback(shoal: Shoal) -> None:
    """Only on request."""
    assert "Traceback" in shoal("stats", "--queue", "nosuch://x", "--debug").err
    assert "Traceback" not in shoal("stats", "--queue", "nosuch://x").err
