"""Runs of teams that are killed, interrupted, resumed, and answered from elsewhere: with real processes and a real
server."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import redis

from queue_backends import Backend, open_backend
from tests.cli.cli_harness import Shoal

ROOT = Path(__file__).parents[2]
WITHIN_S = 30.0
LEASE_S = "2"
TEAM = """
apiVersion: kubeswarm.io/v1alpha1
kind: SwarmAgent
metadata: {name: quick}
spec: {model: mock, prompt: {inline: Be quick.}}
---
apiVersion: kubeswarm.io/v1alpha1
kind: SwarmAgent
metadata: {name: slow}
spec: {model: mock, prompt: {inline: Take your time.}}
---
apiVersion: kubeswarm.io/v1alpha1
kind: SwarmTeam
metadata: {name: crew}
spec:
  roles: [{name: first, swarmAgent: quick}, {name: second, swarmAgent: slow}]
  pipeline:
    - {role: first, inputs: {prompt: go}}
    - {role: second, dependsOn: [first], inputs: {prompt: please wait}}
  output: "{{ .steps.second.output }}"
"""
ASKING = """
apiVersion: kubeswarm.io/v1alpha1
kind: SwarmTeam
metadata: {name: careful}
spec:
  roles: [{name: only, model: mock}]
  pipeline: [{role: only, inputs: {prompt: go}, approval: {message: May it go?}}]
"""


@pytest.fixture(autouse=True)
def _short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nobody waits long for what a killed process held."""
    monkeypatch.setenv("SHOAL_LEASE_SECONDS", LEASE_S)


def team_file(shoal: Shoal, folder: Path, *, is_slow: bool = True) -> str:
    """A team whose second step takes minutes, unless it `is_slow` no more: the script is none of the plan's."""
    script, path = folder / "script.yaml", folder / "team.yaml"
    turn = f"{{text: one two three four, chunk_delay_s: {60 if is_slow else 0}}}"
    script.write_text(f"scenarios: [{{match: wait, turns: [{turn}]}}]")
    path.write_text(TEAM)
    assert shoal("settings", "set", "plugin.mock.script", str(script)).code == 0
    return str(path)


@contextmanager
def started(queue_url: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own; it is gone at the end, whatever happens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "TASK_QUEUE_URL": queue_url,
            "SHOAL_LEASE_SECONDS": LEASE_S,
            "PATH": "",
        },
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def until_line(process: subprocess.Popen[str], words: str) -> None:
    """Wait until it has written a line with these words."""
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"the process ended without {words!r}: {process.communicate()[1]}")


def run_id(shoal: Shoal) -> str:
    """Of the newest run."""
    found: str = json.loads(shoal("runs", "list", "--json", "--limit", "1").out)["id"]
    return found


def calls_by_role(shoal: Shoal) -> dict[str, list[str]]:
    """How the model calls of each role ended."""
    found: dict[str, list[str]] = {}
    for line in shoal("usage", "--records", "--json").out.splitlines():
        record = json.loads(line)
        found.setdefault(record.get("role", ""), []).append(record["outcome"])
    return found


def test_a_killed_run_is_resumed_and_repeats_nothing(shoal: Shoal, queue_url: str, tmp_path: Path) -> None:
    """kill -9 in the middle of the second step: with nothing but the run's id it goes on, and the first step, which had
    ended, is not done again. Nothing of its private queue is left that would stay."""
    with started(queue_url, "run", team_file(shoal, tmp_path), "--watch") as killed:
        until_line(killed, "second               [running]")
        killed.kill()
    name = run_id(shoal)
    assert json.loads(shoal("runs", "show", name, "--json").out)["phase"] == "Running"
    Path(team_file(shoal, tmp_path, is_slow=False)).unlink()
    outcome = shoal("run", "--resume", name, "--output", "json")
    assert outcome.code == 0, outcome.err
    assert "one two three four" in json.loads(outcome.out)["output"]
    calls = calls_by_role(shoal)
    assert calls["first"] == ["completed"]
    assert calls["second"].count("completed") == 1
    assert shoal("run", "--resume", name).code == 0
    assert lasting_keys(queue_url, name) == []
    assert not {f"run-{name}", f"run-{name}:high", f"run-{name}-results"} & set(keys_of(queue_url, name))


def keys_of(queue_url: str, name: str) -> dict[str, int]:
    """The keys of a run's private queue, and the seconds that each has left; -1: it stays."""
    client = redis.Redis.from_url(queue_url.partition("?")[0], decode_responses=True)
    try:
        return {str(key): int(client.ttl(key)) for key in client.scan_iter(match=f"run-{name}*", count=1000)}
    finally:
        client.close()


def lasting_keys(queue_url: str, name: str) -> list[str]:
    """Keys of a run's private queue that no lifetime ends."""
    return [key for key, left_s in keys_of(queue_url, name).items() if left_s == -1]


def test_sigterm_leaves_a_run_to_be_resumed(shoal: Shoal, queue_url: str, tmp_path: Path) -> None:
    """It says how; exit code 130; what was under way was handed back at once."""
    with started(queue_url, "run", team_file(shoal, tmp_path), "--watch") as left:
        until_line(left, "second               [running]")
        left.send_signal(signal.SIGTERM)
        _, err = left.communicate(timeout=WITHIN_S)
    assert left.returncode == 130
    name = run_id(shoal)
    assert f"to go on with it: shoal run --resume {name}" in err
    assert lasting_keys(queue_url, name) == []
    assert shoal("runs", "resume", name).out == f"shoal run --resume {name}\n"


def test_ctrl_c_cancels_the_run(shoal: Shoal, queue_url: str, tmp_path: Path) -> None:
    """In good order: the model's call is ended, the run is cancelled and says so; there is nothing to resume."""
    with started(queue_url, "run", team_file(shoal, tmp_path), "--watch") as running:
        until_line(running, "second               [running]")
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=WITHIN_S)
    assert running.returncode == 130
    assert "second               [cancelled]" in out
    assert "Pipeline Cancelled in " in out
    assert err.splitlines()[-1] == "Error: pipeline cancelled"
    summary = json.loads(shoal("runs", "list", "--json").out)
    assert summary["phase"] == "Cancelled"
    again = shoal("runs", "cancel", summary["id"])
    assert again.code == 1
    assert "has ended already" in again.out


def test_a_question_is_answered_from_another_terminal(shoal: Shoal, queue_url: str, tmp_path: Path) -> None:
    """The run says with which command, and goes on as soon as it was used."""
    (tmp_path / "team.yaml").write_text(ASKING)
    with started(queue_url, "run", str(tmp_path / "team.yaml"), "--watch") as waiting:
        assert waiting.stderr is not None
        line = next(line for line in waiting.stderr if "waits for approval: shoal approve " in line)
        assert shoal("approve", line.split()[-1]).code == 0
        out, _ = waiting.communicate(timeout=WITHIN_S)
    assert waiting.returncode == 0
    assert "only                 [done]" in out


@asynccontextmanager
async def _worker(queue_url: str) -> AsyncIterator[Backend]:
    from worker.assembly import open_worker
    from worker.settings import load_settings

    settings = load_settings({}, overrides={"queue_url": queue_url, "agent.model": "mock"})
    async with await open_backend(queue_url) as backend, open_worker(settings, backend):
        yield backend


@contextmanager
def fleet(queue_url: str) -> Iterator[None]:
    """A worker of the fleet, in a thread of this process."""
    stop, is_up = threading.Event(), threading.Event()

    async def work() -> None:
        async with _worker(queue_url):
            is_up.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    try:
        assert is_up.wait(WITHIN_S)
        yield
    finally:
        stop.set()
        thread.join(WITHIN_S)


def test_with_queue_the_fleet_does_the_work(shoal: Shoal, queue_url: str, tmp_path: Path) -> None:
    """The tasks are in the shared queue, and the run is nobody's own: also of a stored team, without its file."""
    file = team_file(shoal, tmp_path, is_slow=False)
    with fleet(queue_url):
        outcome = shoal("run", file, "--queue", queue_url, "--watch")
        assert outcome.code == 0, outcome.err
        assert "one two three four" in outcome.out
        assert json.loads(shoal("runs", "show", run_id(shoal), "--json").out).get("is_local", False) is False
        assert shoal("team", "apply", file).code == 0
        Path(file).unlink()
        assert shoal("run", "--team", "crew", "--queue", queue_url, "--output", "json").code == 0
    assert len(shoal("runs", "list", "--json").out.splitlines()) == 2


def test_without_a_worker_the_fleets_run_says_that_it_waits(shoal: Shoal, queue_url: str, tmp_path: Path) -> None:
    """Else nothing would tell why nothing happens."""
    outcome = shoal("run", team_file(shoal, tmp_path), "--queue", queue_url, "--timeout", "100ms")
    assert outcome.code == 1
    assert "no worker is up: tasks wait until there is one" in outcome.err
    assert outcome.err.splitlines()[-2:] == [
        "pipeline exceeded timeout of 0.1s (stopped: first)",
        "Error: pipeline failed",
    ]


def test_detached_runs_are_listed_watched_and_cancelled(shoal: Shoal, queue_url: str, tmp_path: Path) -> None:
    """Nobody drives it here, so it waits until it is cancelled; then whoever drives it ends it."""
    file = team_file(shoal, tmp_path)
    detached = shoal("run", file, "--queue", queue_url, "--detach")
    name = detached.out.strip()
    assert detached.code == 0
    assert "shoal runs watch" in detached.err
    assert json.loads(shoal("runs", "list", "--json").out)["phase"] == "Pending"
    assert "`shoal serve` goes on with it" in shoal("runs", "resume", name).out
    assert shoal("run", "--resume", name).code == 1
    assert shoal("runs", "cancel", name).code == 0
    ended = shoal("run", "--resume", name, "--queue", queue_url)
    assert ended.code == 1
    assert "Pipeline Cancelled" in ended.out
    watched = shoal("runs", "watch", name)
    assert watched.code == 1
    assert "Pipeline Cancelled" in watched.out
