"""`shoal run FILE` for teams: from a file to an answer, with the scripted provider."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.cli_harness import Shoal
from worker.cli.run import is_team_file
from worker.local_model import LocalModel

FLOW = """
apiVersion: arkonis.dev/v1alpha1
kind: ArkAgent
metadata: {name: helper}
spec:
  model: gpt-4o
  systemPrompt: You are brief.
---
apiVersion: arkonis.dev/v1alpha1
kind: ArkFlow
metadata: {name: whales}
spec:
  input: {topic: whales}
  steps:
    - name: research
      arkAgent: helper
      inputs: {prompt: "Research {{ .pipeline.input.topic }}"}
    - name: extra
      arkAgent: helper
      dependsOn: [research]
      if: "false"
      inputs: {prompt: more}
    - name: summarize
      arkAgent: helper
      dependsOn: [extra]
      inputs: {prompt: "{{ .steps.research.output }}"}
  output: "{{ .steps.summarize.output }}"
"""
FAILING = """
apiVersion: kubeswarm.io/v1alpha1
kind: SwarmAgent
metadata: {name: broken}
spec:
  model: mock
  options: {script: {scenarios: [{turns: [{fault: {kind: invalid_request, message: the model says no}}]}]}}
---
apiVersion: kubeswarm.io/v1alpha1
kind: SwarmTeam
metadata: {name: doomed}
spec:
  roles: [{name: only, swarmAgent: broken}]
  pipeline: [{role: only, inputs: {prompt: go}}]
"""


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about servers."""
    monkeypatch.setenv("TASK_QUEUE_URL", "memory://")


@pytest.fixture
def flow(tmp_path: Path) -> str:
    """A flow of three steps."""
    path = tmp_path / "flow.yaml"
    path.write_text(FLOW)
    return str(path)


def without_times(text: str) -> str:
    """What can be compared."""
    return re.sub(r"\d+\.\ds", "0.0s", text)


def test_watch_in_a_pipe_writes_arks_lines(shoal: Shoal, flow: str) -> None:
    """Line by line, then the ending and the output; the run's id goes to stderr."""
    outcome = shoal("run", flow, "--watch", "--provider", "mock")
    assert without_times(outcome.out) == (
        "  research             [running]\n"
        "  research             [done]    9 tokens  0.0s\n"
        "    └─ mock response\n"
        "  extra                [skipped]\n"
        "  summarize            [running]\n"
        "  summarize            [done]    8 tokens  0.0s\n"
        "    └─ mock response\n"
        "\n"
        "Flow Succeeded in 0.0s — total: 17 tokens\n"
        "\n"
        "Output:\n"
        "mock response\n"
    )
    assert outcome.code == 0
    assert outcome.err.startswith("run whales-")


def test_without_watch_there_is_the_ending_alone(shoal: Shoal, flow: str) -> None:
    """As `ark run` has it."""
    outcome = shoal("run", flow, "--provider", "mock")
    assert without_times(outcome.out) == ("\nFlow Succeeded in 0.0s — total: 17 tokens\n\nOutput:\nmock response\n")


def test_a_trace_tells_what_happened_before_the_result(shoal: Shoal, flow: str) -> None:
    """Each step's beginning, task and end, in their order; where programs read, it is refused."""
    outcome = shoal("run", flow, "--provider", "mock", "--trace")
    lines = outcome.out.splitlines()
    result = next(number for number, line in enumerate(lines) if line.startswith("Flow Succeeded"))
    told = [line.split("  ", 3) for line in lines[:result]]
    assert outcome.code == 0
    words = " ".join(" ".join(" ".join(each).split()) for each in told)
    order = [
        "run begins",
        "research begins",
        "research step ended",
        "extra skipped",
        "summarize begins",
        "run succeeded",
    ]
    places = [words.index(word) for word in order]
    assert places == sorted(places)
    refused = shoal("run", flow, "--provider", "mock", "--trace", "--output", "json")
    assert refused.code == 2
    assert "shoal runs show RUN --json" in refused.err


def test_json_is_arks_document(shoal: Shoal, flow: str) -> None:
    """Indented by two, steps in the file's order, no output where there is none, nothing else on stdout."""
    outcome = shoal("run", flow, "--watch", "--provider", "mock", "--output", "json")
    found = json.loads(outcome.out)
    assert outcome.out.startswith('{\n  "status": "Succeeded",\n  "duration_ms": ')
    assert found.pop("duration_ms") >= 0
    assert found == {
        "status": "Succeeded",
        "total_tokens": 17,
        "output": "mock response",
        "steps": [
            {"name": "research", "status": "Succeeded", "tokens": 9, "output": "mock response"},
            {"name": "extra", "status": "Skipped", "tokens": 0},
            {"name": "summarize", "status": "Succeeded", "tokens": 8, "output": "mock response"},
        ],
    }


def test_json_lines_are_for_programs(shoal: Shoal, flow: str) -> None:
    """With `--watch` a line for each change of a step, and the result at the end; without it, the result alone."""
    lines = [
        json.loads(line) for line in shoal("run", flow, "--provider", "mock", "--json", "--watch").out.splitlines()
    ]
    assert [line["step"]["phase"] for line in lines[:-1] if line["step"]["name"] == "research"][-1] == "Succeeded"
    assert lines[-1]["result"]["phase"] == "Succeeded"
    [alone] = [json.loads(line) for line in shoal("run", flow, "--provider", "mock", "--json").out.splitlines()]
    assert (alone["phase"], alone["output"], alone["tokens"]) == ("Succeeded", "mock response", 17)


def test_the_output_can_go_into_a_file(shoal: Shoal, flow: str, tmp_path: Path) -> None:
    """Its text; or the whole document, if the file's name says so."""
    shoal("run", flow, "--provider", "mock", "--output", str(tmp_path / "answer.md"))
    shoal("run", flow, "--provider", "mock", "--output", str(tmp_path / "answer.json"))
    assert (tmp_path / "answer.md").read_text() == "mock response\n"
    assert json.loads((tmp_path / "answer.json").read_text())["total_tokens"] == 17


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file on a disk that is always full")
def test_an_output_that_cannot_be_written_is_on_the_screen(shoal: Shoal, flow: str) -> None:
    """It was paid for. The exit code says that it is not where it was wanted."""
    outcome = shoal("run", flow, "--provider", "mock", "--output", "/dev/full")
    assert outcome.code == 1
    assert "Output:\nmock response" in outcome.out
    assert outcome.err.splitlines()[-1] == "error: cannot write /dev/full: No space left on device"


def test_a_failed_team_is_exit_code_1(shoal: Shoal, tmp_path: Path) -> None:
    """The result comes first, with the reason; then one line on stderr, in the kind's own word."""
    path = tmp_path / "team.yaml"
    path.write_text(FAILING)
    outcome = shoal("run", str(path), "--watch")
    assert outcome.code == 1
    assert "  only                 [failed]  " in outcome.out
    assert "the model says no" in outcome.out
    assert "Pipeline Failed in " in outcome.out
    assert outcome.err.splitlines()[-1] == "Error: pipeline failed"
    assert "the model says no" in shoal("run", str(path)).err


@pytest.mark.parametrize(
    "given",
    [
        ["--input", "topic=dolphins and sharks"],
        ["--input", '{"topic": "dolphins and sharks"}'],
        ["--input", "@given.json"],
        ["--input", "@given.yaml"],
        ["--input", "topic=x", "--input", "topic=dolphins and sharks"],
        ["--input", "topic=@text.md"],
    ],
)
def test_input_in_all_its_forms(shoal: Shoal, flow: str, given: list[str]) -> None:
    """It reaches the prompt: longer ones cost more tokens."""
    Path("given.json").write_text('{"topic": "dolphins and sharks"}')
    Path("given.yaml").write_text("topic: dolphins and sharks\n")
    Path("text.md").write_text("dolphins and sharks")
    found = json.loads(shoal("run", flow, "--provider", "mock", "--output", "json", *given).out)
    assert found["steps"][0]["tokens"] == len("prompt: Research dolphins and sharks\n") // 4 + len("mock response") // 4


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("nothing", "--input must be a JSON object of string values"),
        ('["a"]', "--input must be a JSON object of string values: got list"),
        ("{broken", "--input must be a JSON object of string values"),
        ("@gone.json", "cannot read gone.json"),
        ("=x", "--input must be a JSON object of string values"),
    ],
)
def test_wrong_input_is_refused_before_anything_runs(shoal: Shoal, flow: str, given: str, complaint: str) -> None:
    """Exit code 2, and what would do."""
    outcome = shoal("run", flow, "--provider", "mock", "--input", given)
    assert (outcome.code, outcome.out) == (2, "")
    assert complaint in outcome.err


def test_input_that_the_team_does_not_take_is_refused(shoal: Shoal, tmp_path: Path, queue_url: str) -> None:
    """Exit code 2 with the reason, wherever the run would have had its queue."""
    path = tmp_path / "team.yaml"
    path.write_text(FAILING.replace("  roles:", "  inputs: [{name: words, type: number}]\n  roles:"))
    for given, complaint in (("nope=1", "has no input 'nope'"), ("words=x", "input 'words' is 'x'")):
        outcome = shoal("run", str(path), "--input", given)
        assert (outcome.code, outcome.out) == (2, "")
        assert complaint in outcome.err


def test_of_several_flows_the_first_is_taken_with_a_warning(shoal: Shoal, tmp_path: Path) -> None:
    """ark's words; `--flow` picks, and an unknown one says which there are."""
    path = tmp_path / "two.yaml"
    path.write_text(FLOW + "---\n" + FLOW.partition("---\n")[2].replace("name: whales", "name: sharks"))
    outcome = shoal("run", str(path), "--provider", "mock")
    warning = 'warning: 2 flows found [whales sharks] — running "whales" (use --flow <name> to pick)'
    assert warning in outcome.err
    picked = shoal("run", str(path), "--provider", "mock", "--flow", "sharks")
    assert "warning" not in picked.err
    assert "run sharks-" in picked.err
    unknown = shoal("run", str(path), "--flow", "eels")
    assert unknown.code == 4
    assert 'flow "eels" not found; available: [whales sharks' in unknown.err


def test_a_dry_run_is_what_validate_says(shoal: Shoal, flow: str) -> None:
    """And it runs nothing."""
    dry, checked = shoal("run", flow, "--dry-run"), shoal("validate", flow)
    assert (dry.code, dry.out) == (checked.code, checked.out)
    assert "Flow:   whales" in dry.out


def test_limits_of_the_run(shoal: Shoal, flow: str) -> None:
    """`--max-tokens` is the run's, whatever the file says."""
    outcome = shoal("run", flow, "--provider", "mock", "--max-tokens", "5")
    assert outcome.code == 1
    assert "Flow Failed" in outcome.out
    assert outcome.err.splitlines()[-2:] == ["token budget of 5 exceeded: used 9", "Error: flow failed"]


def test_roles_without_a_model_take_the_fallback_and_it_says_so(
    shoal: Shoal, flow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a single task; a team whose roles have models needs none."""
    monkeypatch.setattr(LocalModel, "available", classmethod(lambda cls: False))
    Path(flow).write_text(FLOW.replace("model: gpt-4o", "model: ''"))
    outcome = shoal("run", flow)
    assert "no model is configured" in outcome.err
    assert outcome.code == 0
    Path(flow).write_text(FLOW.replace("gpt-4o", "mock"))
    assert "no model" not in shoal("run", flow).err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["{flow}", "--system", "x"], "--system means nothing for a team"),
        (["{flow}", "--agent", "x"], "--agent means nothing for a team"),
        (["hello", "--watch"], "--watch means nothing for one task"),
        (["hello", "--input", "a=b"], "--input means nothing for one task"),
        (["{flow}", "--detach"], "--detach needs --queue"),
        (["--resume", "x", "--input", "a=b"], "--input cannot be changed for a run that has begun"),
        (["{flow}", "--max-tokens", "0"], "--max-tokens is 0"),
        (["{flow}", "--timeout", "0"], "--timeout is 0"),
        (["{flow}", "--output", "gone/answer.md"], "cannot write gone/answer.md: there is no folder gone"),
        (["{flow}", "--output", "."], "cannot write .: it is a folder"),
        ([], "give a prompt, a file, or --resume"),
    ],
)
def test_flags_that_mean_nothing_are_refused(shoal: Shoal, flow: str, arguments: list[str], complaint: str) -> None:
    """Rather than passed over in silence."""
    outcome = shoal("run", *(argument.format(flow=flow) for argument in arguments))
    assert outcome.code == 2
    assert complaint in outcome.err


def test_a_run_that_nobody_knows_is_exit_code_4(shoal: Shoal) -> None:
    """Nothing can be gone on with."""
    outcome = shoal("run", "--resume", "whales-1")
    assert outcome.code == 4
    assert "no run 'whales-1'" in outcome.err


@pytest.mark.parametrize(
    ("name", "text", "is_team"),
    [
        ("a.yaml", "kind: ArkFlow\n", True),
        ("a.yaml", "# a comment\n---\napiVersion: x/v1\nkind: ArkFlow\n", True),
        ("a.yaml", "kind: ArkFlow\nspec: [broken\n", True),
        ("a.json", '{"kind": "ArkFlow"}', True),
        ("a.json", '{"prompt": "x", "meta": {"kind": "y"}}', False),
        ("a.yaml", "prompt: |\n  what is\n  kind: of\n", False),
        ("a.yaml", "prompt: x\nmeta:\n  kind: y\n", False),
    ],
)
def test_what_a_team_file_is(tmp_path: Path, name: str, text: str, is_team: bool) -> None:
    """A document with a kind, also one that is broken further down: its errors are a team file's."""
    path = tmp_path / name
    path.write_text(text)
    assert is_team_file(str(path)) is is_team


def test_variables_of_the_file_are_there_for_its_time_alone(
    shoal: Shoal, flow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the environment has already stay as they are."""
    import os

    from worker.teams.local import environment

    monkeypatch.setenv("THERE", "before")
    with environment({"THERE": "file", "NEW": "file"}):
        assert (os.environ["THERE"], os.environ["NEW"]) == ("before", "file")
    assert os.environ["THERE"] == "before"
    assert "NEW" not in os.environ


@pytest.mark.parametrize("by", ["flag", "file"])
def test_a_provider_that_nobody_knows_is_refused_before_the_run_begins(shoal: Shoal, flow: str, by: str) -> None:
    """Exit code 2 with the names there are, and no run is left behind."""
    if by == "file":
        Path(flow).write_text(FLOW.replace("model: gpt-4o", "model: gpt-4o\n  provider: nope"))
    outcome = shoal("run", flow, *(["--provider", "nope"] if by == "flag" else []))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith('error: unknown provider "nope" — did you register it with providers.register? ')
    assert "scripted" in outcome.err
