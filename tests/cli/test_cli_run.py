"""`shoal run` and `shoal worker`: from a prompt or a task file to an answer, for real, with the scripted provider."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.cli_harness import Shoal, WithBackend, pull_one
from worker.local_model import LocalModel

ROOT = Path(__file__).parents[2]
SCRIPT = """
scenarios:
  - match: add
    turns:
      - tool_calls: [{name: add, arguments: {a: 1, b: 41}}]
      - text: "It is {last_result}."
  - match: fail
    turns: [{fault: {kind: invalid_request, message: the model says no}}]
  - match: slow
    turns: [{text: "one two three four five six", chunk_delay_s: 60}]
"""
TOOLS = '''
from worker.tools.python import tool

@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b
'''
OWN_PROVIDER = (
    TOOLS
    + """
import providers
from providers.scripted import ScriptedProvider

providers.register("tests-own", ScriptedProvider)
"""
)


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    """A task that needs a tool, with everything beside it."""
    (tmp_path / "script.yaml").write_text(SCRIPT)
    (tmp_path / "tools.py").write_text(TOOLS)
    path = tmp_path / "task.yaml"
    path.write_text(
        f"prompt: please add\nmodel: mock\noptions: {{script: {tmp_path / 'script.yaml'}}}\npython_tools: [tools.py]\n"
    )
    return path


def test_a_prompt_is_answered(shoal: Shoal) -> None:
    """The answer on stdout, the figures on stderr, exit code 0."""
    outcome = shoal("run", "hello", "--model", "mock")
    assert (outcome.code, outcome.out) == (0, "mock response\n")
    assert "tokens" in outcome.err


def test_a_task_file_brings_its_agent_and_tools(shoal: Shoal, task_file: Path) -> None:
    """Tool calls are shown as they happen, and their results reach the model."""
    outcome = shoal("run", str(task_file))
    assert (outcome.code, outcome.out) == (0, "It is 42.\n")
    assert outcome.err.splitlines()[:2] == ["→ add(a=1, b=41)", "← 42"]


def test_what_was_spent_shows_in_usage(shoal: Shoal, task_file: Path) -> None:
    """One record for each model call, and totals by model."""
    shoal("run", str(task_file))
    records = [json.loads(line) for line in shoal("usage", "--records", "--json").out.splitlines()]
    assert [record["outcome"] for record in records] == ["completed", "completed"]
    [model] = [json.loads(line) for line in shoal("usage", "--by", "model", "--json").out.splitlines()]
    assert (model["name"], model["calls"]) == ("scripted/mock", 2)
    assert "scripted/mock" in shoal("usage", "--by", "model").out


def test_a_failed_run_is_exit_code_1(shoal: Shoal, task_file: Path) -> None:
    """With the reason on stderr."""
    task_file.write_text(task_file.read_text().replace("please add", "fail"))
    outcome = shoal("run", str(task_file))
    assert outcome.code == 1
    assert "the model says no" in outcome.err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("model: mock", "has no prompt"),
        ("prompt: x\nmodle: mock", "unknown key 'modle': did you mean 'model'?"),
        ("prompt: x\nmax_tokens: 0", "max_tokens: must be between 1 and 200000, got 0"),
        ("prompt: x\nmeta: {a: 1}", "task does not fit"),
        ("prompt: x\nmcp_servers: [{nam: x}]", "mcp_servers[0]: unknown key 'nam'"),
    ],
)
def test_a_wrong_task_file_is_exit_code_2(shoal: Shoal, tmp_path: Path, text: str, complaint: str) -> None:
    """One line that names the file and the key."""
    path = tmp_path / "task.yaml"
    path.write_text(text)
    outcome = shoal("run", str(path))
    assert outcome.code == 2
    assert complaint in outcome.err
    assert str(path) in outcome.err


def test_a_task_file_that_is_not_there_is_no_prompt(shoal: Shoal) -> None:
    """`shoal run tsak.yaml` must not send the file's name to a model."""
    outcome = shoal("run", "tsak.yaml", "--model", "mock")
    assert outcome.code == 2
    assert "cannot read tsak.yaml" in outcome.err


def test_an_agent_that_nobody_declared_is_exit_code_4(shoal: Shoal) -> None:
    """The names there are come with it."""
    Path("shoal.yaml").write_text("agent: {model: mock}\nagents: {poet: {system_prompt: x}}")
    outcome = shoal("run", "hi", "--agent", "pote")
    assert (outcome.code, outcome.err) == (4, "error: no agent 'pote' is declared; there are poet\n")
    assert shoal("run", "hi", "--agent", "poet").code == 0


def test_without_a_model_the_scripted_provider_answers_and_says_so(
    shoal: Shoal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes a pretended answer for a real one."""
    monkeypatch.setattr(LocalModel, "available", classmethod(lambda cls: False))
    outcome = shoal("run", "hello")
    assert (outcome.code, outcome.out) == (0, "mock response\n")
    assert "no model is configured" in outcome.err
    assert "only pretends" in outcome.err


def test_a_provider_without_a_model_is_refused(shoal: Shoal) -> None:
    """There is no telling which of its models was meant."""
    outcome = shoal("run", "hello", "--provider", "anthropic")
    assert outcome.code == 2
    assert "provider 'anthropic' needs a model" in outcome.err


def test_a_provider_that_nobody_knows_is_refused_at_once(shoal: Shoal) -> None:
    """Exit code 2 with the names there are; the flag counts, not the file's agent that it overrides."""
    Path("shoal.yaml").write_text("agents: {poet: {model: x, provider: nosuch}, tester: {model: mock}}")
    for given in (["--model", "x", "--provider", "nosuch"], ["--agent", "poet"]):
        outcome = shoal("run", "hello", *given)
        assert outcome.code == 2
        assert outcome.err.startswith('error: unknown provider "nosuch" — did you register it')
    assert shoal("run", "hello", "--agent", "poet", "--provider", "mock").code == 0
    assert shoal("run", "hello", "--agent", "tester").code == 0


def test_a_file_of_tools_may_register_the_provider(shoal: Shoal, tmp_path: Path) -> None:
    """It is loaded after the look at the provider's name, which therefore waits for the call."""
    (tmp_path / "own.py").write_text(OWN_PROVIDER)
    outcome = shoal("run", "hello", "--provider", "tests-own", "--model", "x", "--tools", str(tmp_path / "own.py"))
    assert (outcome.code, outcome.out) == (0, "mock response\n")


@pytest.mark.parametrize(
    ("environ", "complaint"),
    [
        ({}, "required env var AGENT_MODEL is not set"),
        ({"AGENT_MODEL": "mock"}, "required env var AGENT_SYSTEM_PROMPT is not set"),
        ({"AGENT_MODEL": "mock", "AGENT_SYSTEM_PROMPT": "x", "SHOAL_HEALTH_PORT": "-1"}, "SHOAL_HEALTH_PORT must be"),
    ],
)
def test_a_worker_that_is_not_configured_does_not_start(
    shoal: Shoal, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], complaint: str
) -> None:
    """On a queue that others share, a worker must know its model: exit code 2, one line."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    outcome = shoal("worker")
    assert outcome.code == 2
    assert complaint in outcome.err


def test_doctor_finds_what_is_wrong(shoal: Shoal, task_file: Path) -> None:
    """All well: 0. A missing tool file, or a provider that does not exist: 1, with advice."""
    Path("shoal.yaml").write_text("agent: {model: mock}\npython_tools: [tools.py]")
    well = shoal("doctor", "--json")
    findings = {(row["area"], row["name"]): row for row in map(json.loads, well.out.splitlines())}
    assert well.code == 0
    assert findings["tools", "offered"]["detail"] == "1: add"
    assert "answers in" in findings["queue", "reachable"]["detail"]
    Path("shoal.yaml").write_text("agent: {model: x, provider: nosuch}\npython_tools: [missing.py]")
    ill = shoal("doctor")
    assert ill.code == 1
    assert 'unknown provider "nosuch"' in ill.out
    assert "missing.py" in ill.out


def test_doctor_explains_a_wrong_setting_and_a_dead_queue(shoal: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are findings, not crashes."""
    dead = shoal("doctor", "--queue", "redis://127.0.0.1:1")
    assert dead.code == 1
    assert "✗ reachable" in dead.out
    monkeypatch.setenv("AGENT_MAX_TOKENS", "x")
    assert shoal("doctor").code == 1


LAUNCH = """
import sys
from providers import register
from providers.scripted import ScriptedProvider
from queue_backends import memory, redis, register_backend
register("mock", ScriptedProvider)
register_backend("memory", memory.open_backend)
register_backend("redis", redis.open_backend)
from worker.cli import main
main()
"""


@contextmanager
def started(queue_url: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own, as a shell would start it; it is gone at the end, whatever happens."""
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT), "TASK_QUEUE_URL": queue_url, "PATH": ""},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def first_characters(process: subprocess.Popen[str], count: int) -> str:
    """Wait until the process has written so much."""
    assert process.stdout is not None
    return process.stdout.read(count)


def test_ctrl_c_ends_watching_but_not_the_task(shoal: Shoal, queue_url: str, task_file: Path) -> None:
    """Exit code 130, and how to go on; the task still runs and can be cancelled."""
    Path("shoal.yaml").write_text(f"agent: {{model: mock, options: {{script: {task_file.parent / 'script.yaml'}}}}}")
    with started(queue_url, "worker", "--config", str(Path("shoal.yaml").resolve()), "--health-port", "0") as worker:
        task_id = shoal("submit", "slow").out.strip()
        with started(queue_url, "tail", task_id) as watcher:
            assert first_characters(watcher, 3) == "one"
            watcher.send_signal(signal.SIGINT)
            _, err = watcher.communicate(timeout=30)
        assert watcher.returncode == 130
        assert f"the task goes on. To continue: shoal tail {task_id} --after 0" in err
        assert shoal("tasks", "cancel", task_id).out == f"{task_id}  its worker has been told to stop\n"
        assert shoal("tail", task_id).code == 1
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=30) == 0


def test_ctrl_c_cancels_a_run(shoal: Shoal, queue_url: str, task_file: Path) -> None:
    """Nothing is spent after the user has gone."""
    task_file.write_text(task_file.read_text().replace("please add", "slow"))
    with started(queue_url, "run", str(task_file)) as running:
        assert first_characters(running, 3) == "one"
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "cancelled task" in err


def test_a_run_takes_no_task_of_others(shoal: Shoal, with_backend: WithBackend) -> None:
    """What waits in the queue is for its workers, who have other tools and another model."""
    waiting = shoal("submit", "not for me").out.strip()
    assert shoal("run", "hello", "--model", "mock").code == 0
    assert with_backend(pull_one).task.id == waiting
