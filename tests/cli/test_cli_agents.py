"""`shoal agent`, `shoal app`, `shoal llm`, `shoal group`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.cli_harness import Shoal

TEAM = """
kind: Agent
name: Support Desk
app: helpdesk
groups: [staff]
system_prompt_file: prompts/support.md
settings: {max_tokens: 2000}
budget: {period: month, usd: 100}
---
kind: App
slug: helpdesk
llms: [main]
tools: ["search__*"]
datasources: [manuals]
---
# Order does not matter
kind: Llm
slug: main
provider: scripted
model: scripted
---
kind: Group
slug: staff
---
kind: Datasource
slug: manuals
description: All manuals
"""


def write_team(folder: Path) -> None:
    """A team's YAML file, and the prompt that it names."""
    (folder / "team").mkdir()
    (folder / "team" / "prompts").mkdir()
    (folder / "team" / "prompts" / "support.md").write_text("You help.\n")
    (folder / "team" / "team.yaml").write_text(TEAM)


def test_a_file_is_applied_and_doing_it_again_changes_nothing(shoal: Shoal, tmp_path: Path) -> None:
    """Every kind, what is referred to first, the prompt from beside the file; then one change makes one version."""
    write_team(tmp_path)
    first = shoal("agent", "apply", "team/team.yaml")
    assert (first.code, first.err) == (0, "")
    assert first.out.splitlines() == [
        f"{name} created (version 1)"
        for name in ("llm main", "datasource manuals", "group staff", "app helpdesk", "agent support-desk")
    ]
    again = [json.loads(line) for line in shoal("app", "apply", "team/team.yaml", "--json").out.splitlines()]
    assert {each["outcome"] for each in again} == {"unchanged"}
    (tmp_path / "team" / "prompts" / "support.md").write_text("You help kindly.\n")
    changed = [json.loads(line) for line in shoal("agent", "apply", "team/team.yaml", "--json").out.splitlines()]
    assert [(each["slug"], each["outcome"], each["version"]) for each in changed if each["outcome"] != "unchanged"] == [
        ("support-desk", "changed", 2)
    ]
    stored = json.loads(shoal("agent", "show", "support-desk", "--json").out)
    assert stored["value"]["system_prompt"] == "You help kindly."


def test_what_show_writes_apply_takes(shoal: Shoal, tmp_path: Path) -> None:
    """As YAML, unchanged."""
    write_team(tmp_path)
    shoal("agent", "apply", "team/team.yaml")
    shown = shoal("agent", "show", "support-desk").out
    assert yaml.safe_load(shown)["kind"] == "Agent"
    (tmp_path / "again.yaml").write_text(shown)
    assert shoal("agent", "apply", "again.yaml").out == "agent support-desk unchanged (version 1)\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Agnet\nslug: a", "kind is 'Agnet': use one of Llm, Datasource, Group, App, Agent"),
        ("slug: a", "kind is None"),
        ("kind: Agent\nslug: a\nmodle: x", "unknown field `modle`"),
        ("kind: Agent\nslug: a\nmodel: m\nsettings: {max_tokens: 0}", "must be between 1 and 200000"),
        ("kind: Agent\nslug: a\nsystem_prompt_file: none.md\nmodel: m", "reading system prompt from"),
        ("kind: App\nslug: a\nsystem_prompt_file: none.md", "is for agents"),
        ("kind: Agent\nslug: a\nslug: b", "given twice"),
        ("kind: [", "broken.yaml:"),
        ("- a", "expected keys and values"),
        ("", "there is no document"),
        ("kind: Agent\nmodel: m", "slug is ''"),
    ],
)
def test_a_file_that_cannot_be_is_refused_and_nothing_of_it_is_kept(
    shoal: Shoal, tmp_path: Path, text: str, said: str
) -> None:
    """With the file and its document; a good document beside the bad one is not applied either."""
    (tmp_path / "broken.yaml").write_text(text)
    (tmp_path / "good.yaml").write_text("kind: Group\nslug: staff")
    refused = shoal("agent", "apply", "good.yaml", "broken.yaml")
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
    assert "broken.yaml" in refused.err or "none.md" in refused.err
    assert shoal("group", "list").out == ""


def test_an_agent_is_made_changed_switched_and_deleted(shoal: Shoal) -> None:
    """With flags alone; a list is replaced as a whole, a setting comes to the others, and a field can be cleared."""
    made = shoal(
        *("agent", "create", "poet", "--model", "gpt-4o", "--tool", "a", "--tool", "b*", "--set", "max_tokens=50"),
        *("--system-prompt", "Rhyme.", "--budget", '{"usd": 5}', "--description", "Writes"),
    )
    assert (made.code, made.out) == (0, "agent poet is created (version 1)\n")
    assert shoal("agent", "create", "poet", "--model", "m").code == 1
    assert "agent/poet" in shoal("budgets", "list").out
    shoal("agent", "update", "poet", "--tool", "c", "--set", "max_turns=3", "--clear", "description")
    value = json.loads(shoal("agent", "show", "poet", "--json").out)["value"]
    assert value == {
        "slug": "poet",
        "model": "gpt-4o",
        "system_prompt": "Rhyme.",
        "tools": ["c"],
        "settings": {"max_tokens": 50, "max_turns": 3},
        "budget": {"usd": 5},
    }
    assert shoal("agent", "update", "poet", "--expect", "1", "--name", "x").code == 1
    assert shoal("agent", "deactivate", "poet").code == 0
    (row,) = [line for line in shoal("agent", "list").out.splitlines() if line.startswith("poet")]
    assert "off" in row
    assert shoal("agent", "list", "--active", "--text", "poet").out == ""
    assert shoal("agent", "activate", "poet").code == 0
    assert shoal("agent", "delete", "poet").code == 0
    assert shoal("agent", "show", "poet").code == 4
    assert shoal("agent", "delete", "poet").code == 4


def test_versions_are_listed_and_brought_back(shoal: Shoal) -> None:
    """What each one changed, also after the object was deleted."""
    shoal("llm", "create", "main", "--model", "gpt-4o")
    shoal("llm", "update", "main", "--allow", "gpt-*", "--api-key-env", "KEY")
    shoal("llm", "delete", "main")
    listed = shoal("llm", "versions", "main").out
    assert "allowed_models, api_key_env" in listed
    assert shoal("llm", "rollback", "main", "1").out == "llm main is as it was at version 1 (version 3)\n"
    versions = [json.loads(line)["version"] for line in shoal("llm", "versions", "main", "--json").out.splitlines()]
    assert versions == [3, 2, 1]
    assert shoal("llm", "rollback", "main", "9").code == 4
    assert shoal("llm", "versions", "nobody").code == 4


def test_references_and_their_users_are_named(shoal: Shoal) -> None:
    """What is not there, and what is in use."""
    missing = shoal("app", "create", "desk", "--llm", "main")
    assert (missing.code, "there is no llm 'main'" in missing.err) == (2, True)
    shoal("llm", "create", "main", "--model", "gpt-4o", "--provider", "elsewhere")
    shoal("app", "create", "desk", "--llm", "main", "--tool", "*")
    shoal("agent", "create", "helper", "--app", "desk")
    used = shoal("app", "delete", "desk")
    assert (used.code, "used by agent helper" in used.err) == (1, True)
    warned = shoal("llm", "update", "main", "--provider", "mine")
    assert (warned.code, "warning: llm 'main': provider 'mine' is not known here" in warned.err) == (0, True)
    assert [line.split()[0] for line in shoal("app", "list").out.splitlines()] == ["APP", "desk"]


def test_a_namespaces_objects_are_its_own(shoal: Shoal) -> None:
    """The same slug in two namespaces is two agents."""
    shoal("agent", "create", "twin", "--model", "one")
    shoal("agent", "create", "twin", "--model", "two", "--namespace", "acme")
    assert json.loads(shoal("agent", "show", "twin", "--json").out)["value"]["model"] == "one"
    assert json.loads(shoal("agent", "show", "twin", "--namespace", "acme", "--json").out)["value"]["model"] == "two"
    assert "two" not in shoal("agent", "list", "--namespace", "beta").out
    shoal("agent", "delete", "twin", "--namespace", "acme")
    assert shoal("agent", "show", "twin").code == 0


def test_agents_of_the_settings_are_in_the_list(shoal: Shoal, tmp_path: Path) -> None:
    """With those of the fleet, and said to be what they are."""
    (tmp_path / "shoal.yaml").write_text("agent: {model: mock}\nagents: {clerk: {model: mock}}")
    rows = {line.split()[0]: line.split()[-1] for line in shoal("agent", "list").out.splitlines()[1:]}
    assert rows == {"clerk": "settings", "default": "settings"}


def test_flags_that_are_no_values_are_refused(shoal: Shoal) -> None:
    """JSON that is none, a field given twice, a field that is none."""
    assert "give a JSON object" in shoal("agent", "create", "a", "--budget", "5").err
    twice = shoal("agent", "create", "a", "--system-prompt", "x", "--system-prompt-file", "shoal.yaml")
    assert twice.code == 2
    shoal("agent", "create", "a", "--model", "m")
    assert "there is no such field" in shoal("agent", "update", "a", "--clear", "colour").err
    assert shoal("group", "activate", "staff").code == 2  # a group has no switch


def test_the_doctor_names_agents_that_could_not_run(shoal: Shoal, tmp_path: Path) -> None:
    """An agent that fits is counted; one whose app was switched off is a problem, one with doubts a warning."""
    (tmp_path / "shoal.yaml").write_text("agent: {model: mock, provider: mock}")
    shoal("llm", "create", "main", "--model", "mock", "--provider", "mock")
    shoal("app", "create", "desk", "--llm", "main")
    shoal("agent", "create", "good", "--model", "mock", "--provider", "mock")
    shoal("agent", "create", "lost", "--app", "desk")
    shoal("agent", "create", "doubtful", "--route", "nowhere")
    shoal("app", "deactivate", "desk")
    found = [json.loads(line) for line in shoal("doctor", "--json").out.splitlines()]
    said = {each["name"]: (each["verdict"], each["detail"]) for each in found if each["area"] == "agents"}
    assert said["lost"][0] == "problem"
    assert "app 'desk' is not active" in said["lost"][1]
    assert said["doubtful"][0] == "warning"
    assert said["declared"] == ("ok", "2 of 3 active ones can run")


def test_the_example_is_applied(shoal: Shoal) -> None:
    """What the repository shows works."""
    example = Path(__file__).parents[2] / "examples" / "agents" / "support.yaml"
    assert shoal("agent", "apply", str(example)).out.splitlines()[-1] == "agent support-desk created (version 1)"
