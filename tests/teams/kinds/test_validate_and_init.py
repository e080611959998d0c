"""`shoal validate` and `shoal init`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.teams.kinds.files import AGENT, document, flow, team
from worker.cli.app import run
from worker.teams.bundle import read_bundle

GOOD = flow("{name: research, arkAgent: writer}", "{name: summarise, arkAgent: writer, dependsOn: [research]}")
MISSING = "ArkAgent"


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")


def _write(text: str, name: str = "team.yaml") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def test_a_good_file_is_shown_in_arks_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Byte for byte, but for the command's name."""
    assert run(["validate", _write(GOOD)]) == 0
    assert capsys.readouterr().out == (
        "Flow:   f\n"
        "Steps:  2\n"
        "  research              agent=mock                  deps=-\n"
        "  summarise             agent=mock                  deps=[research]\n"
        "✓ YAML is valid — use `shoal run` to execute\n"
    )


def test_later_kinds_say_team_and_model(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipeline, a dynamic and a routed team, one after the other."""
    text = "---\n".join(
        [
            team("  roles: [{name: r, model: gpt-4o}]\n  pipeline: [{role: r, inputs: {p: x}}]\n"),
            document(
                "SwarmTeam",
                "  entry: a\n  roles: [{name: a, model: m, canDelegate: [b]}, {name: b, model: n}]\n",
                name="d",
            ),
            document("SwarmTeam", "  routing: {model: small}\n", name="e"),
            document("SwarmAgent", "  model: m\n  capabilities: [{name: sql}, {name: etl}]\n", name="dba"),
        ]
    )
    assert run(["validate", _write(text)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Team:   t",
        "Steps:  1",
        "  r                     model=gpt-4o                     deps=-",
        "",
        "Team:   d",
        "Mode:   dynamic, entry a",
        "Roles:  2",
        "  a                     model=m                          delegates=[b]",
        "  b                     model=n                          delegates=-",
        "",
        "Team:   e",
        "Mode:   routed",
        "Roles:  2",
        "  (router)              model=small                      capabilities=-",
        "  dba                   model=m                          capabilities=[sql etl]",
        "✓ YAML is valid — use `shoal run` to execute",
    ]


def test_missing_agents_are_told_in_arks_words(capsys: pytest.CaptureFixture[str]) -> None:
    """The table shows where, stderr says which, and the last line what to do."""
    text = flow(
        "{name: a, arkAgent: nobody}", "{name: b, arkAgent: writer, dependsOn: [a]}", "{name: c, arkAgent: nix}"
    )
    assert run(["validate", _write(text)]) == 1
    told = capsys.readouterr()
    assert told.out == (
        "Flow:   f\n"
        "Steps:  3\n"
        "  a                     agent=<not found>           deps=-\n"
        "  b                     agent=mock                  deps=[a]\n"
        "  c                     agent=<not found>           deps=-\n"
    )
    assert told.err.splitlines() == [
        'error: step "a" references unknown ArkAgent "nobody"',
        'error: step "c" references unknown ArkAgent "nix"',
        "error: 2 missing agent(s) — add the ArkAgent definitions to your YAML",
    ]


def test_errors_go_to_stderr_with_their_places(capsys: pytest.CaptureFixture[str]) -> None:
    """All of them; the exit code is 1."""
    text = flow("{name: a, arkAgent: writer, dependsOn: [a], timeoutSeconds: 0}", more="  zzz: 1\n")
    assert run(["validate", _write(text)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        'team.yaml:6:46: error: spec.steps[0].dependsOn: invalid DAG: cycle detected: step "a" → "a" forms a cycle',
        "team.yaml:6:67: error: spec.steps[0].timeoutSeconds: it is '0': use a whole number of at least 1",
        "team.yaml:7:3: warning: spec.zzz: unknown field 'zzz' of a team: it is not read",
        "error: team.yaml has 2 errors",
    ]


def test_strict_takes_warnings_for_errors(capsys: pytest.CaptureFixture[str]) -> None:
    """For pipelines that shall not let them through."""
    path = _write(flow("{name: a, arkAgent: writer, dependson: []}"))
    assert run(["validate", path]) == 0
    assert "did you mean `dependsOn`?" in capsys.readouterr().err
    assert run(["validate", path, "--strict"]) == 1


def test_one_team_of_several(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --flow all are shown; a name that is not there is an error."""
    text = GOOD + "---\n" + document("ArkFlow", "  steps: [{name: x, arkAgent: writer}]\n", name="g")
    assert run(["validate", _write(text), "--flow", "g"]) == 0
    assert capsys.readouterr().out.startswith("Flow:   g\nSteps:  1\n")
    assert run(["validate", "team.yaml", "--flow", "h"]) == 1
    assert 'error: flow "h" not found; available: [f g writer]' in capsys.readouterr().err
    assert run(["validate", _write("kind: ConfigMap\nmetadata: {name: c}\n", "empty.yaml")]) == 1
    assert (
        "error: no ArkFlow resources found in empty.yaml, nor teams or agents of another kind"
        in capsys.readouterr().err
    )


def test_several_files_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One document a file; the exit code is that of the worst."""
    _write(GOOD)
    _write(flow("{name: a}"), "bad.yaml")
    assert run(["validate", "team.yaml", "bad.yaml"]) == 1
    assert "team.yaml:\nFlow:" in capsys.readouterr().out
    assert run(["validate", "team.yaml", "bad.yaml", "--json"]) == 1
    good, bad = map(json.loads, capsys.readouterr().out.splitlines())
    assert (good["valid"], bad["valid"]) == (True, False)
    assert [step["name"] for step in good["teams"][0]["steps"]] == ["research", "summarise"]
    assert good["agents"] == ["writer"]
    [finding] = bad["findings"]
    assert (finding["severity"], finding["line"], finding["field"]) == ("error", 6, "spec.steps[0].name")


def test_a_file_that_cannot_be_read_hides_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    """Each has its line, or its document; nothing of its name steers the terminal."""
    Path("bad\x1b[31m.yaml").write_bytes(b"\xff")
    files = ["bad\x1b[31m.yaml", _write(GOOD)]
    assert run(["validate", *files]) == 1
    told = capsys.readouterr()
    assert "error: cannot read bad\N{REPLACEMENT CHARACTER}[31m.yaml: it is no UTF-8 text (byte 0)" in told.err
    assert told.out.endswith("✓ YAML is valid — use `shoal run` to execute\n")
    assert "\x1b[31m" not in told.out
    assert run(["validate", *files, "--json"]) == 1
    bad, good = map(json.loads, capsys.readouterr().out.splitlines())
    assert (bad["valid"], good["valid"], good["error"]) == (False, True, "")
    assert bad["error"].endswith("it is no UTF-8 text (byte 0)")


def test_a_file_of_triggers_and_policies_alone_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    """As kubeswarm's own examples have them, one kind a file: there is nothing to run, and something to store."""
    event = document("SwarmEvent", "  source: {type: webhook}\n  targets: [{team: t}]\n", name="hook")
    policy = document("SwarmNotify", "  channels: [{type: webhook, webhook: {url: 'https://x/'}}]\n", name="ops")
    path = _write(f"{event}---\n{policy}")
    assert run(["validate", path]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Triggers: hook",
        "Notifies: ops",
        "✓ YAML is valid — use `shoal team apply` to store it",
    ]
    assert run(["validate", path, "--json"]) == 0
    assert run(["validate", path, "--flow", "t"]) == 1
    assert run(["validate", _write("", "empty.yaml"), "--json"]) == 1


def test_a_dry_run_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """`shoal run --dry-run` checks the file and runs nothing."""
    assert run(["run", _write(GOOD), "--dry-run"]) == 0
    assert "✓ YAML is valid" in capsys.readouterr().out
    assert run(["run", _write(flow("{name: a, arkAgent: nix}")), "--dry-run"]) == 1
    assert "error: 1 missing agent(s)" in capsys.readouterr().err


def test_an_agent_alone_is_shown_as_a_team_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    """It can be run by its name."""
    assert run(["validate", _write(AGENT)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "Team:   writer"


def test_init_makes_a_project_that_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    """The files are there, the team has no finding, and its next steps are told."""
    assert run(["init", "My Team"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        'Created project "My Team"',
        "",
        "Next steps:",
        "  cd 'My Team'",
        "  shoal run quickstart.yaml --provider mock --watch",
        "  cp .env.example .env    # and fill in ANTHROPIC_API_KEY",
        "  shoal run quickstart.yaml --watch",
    ]
    assert sorted(path.name for path in Path("My Team").iterdir()) == [
        ".env.example",
        ".gitignore",
        "docker-compose.yml",
        "quickstart.yaml",
    ]
    found = read_bundle(Path("My Team/quickstart.yaml"))
    assert (found.teams, found.agents, found.findings) == (("my-team",), ("my-team-debater",), ())


def test_init_does_not_touch_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor does it make something of a name that is none."""
    Path("there").mkdir()
    assert run(["init", "there"]) == 1
    assert capsys.readouterr().err == 'error: directory "there" already exists\n'
    assert run(["init", "!!!"]) == 1
    assert "is no name for a project" in capsys.readouterr().err
    assert not Path("!!!").exists()


def test_the_project_runs_offline(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, without a key, on a queue in memory: all four steps, and the output that its template makes."""
    monkeypatch.setenv("TASK_QUEUE_URL", "memory://")
    assert run(["init", "demo"]) == 0
    capsys.readouterr()
    assert run(["run", "demo/quickstart.yaml", "--provider", "mock"]) == 0
    assert (
        capsys.readouterr()
        .out.rstrip()
        .endswith(
            "yes: Retries alone are worth the extra service; move two jobs first.\n"
            "We move two jobs this month, look at what that costs to run, and decide about the rest then."
        )
    )
