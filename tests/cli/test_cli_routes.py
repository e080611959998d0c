"""`shoal routes`, and routes on the command line."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.cli_harness import Shoal

SCRIPTS = {
    name: {"scenarios": [{"turns": [turn]}]}
    for name, turn in {
        "bad": {"text": "never", "fault": {"kind": "overloaded"}},
        "worse": {"text": "nor this", "fault": {"kind": "unavailable"}},
        "good": {"text": "here you are"},
    }.items()
}


def declare(folder: Path) -> None:
    """A shoal.yaml with a route whose first targets always fail."""
    targets = [{"provider": "scripted", "model": name, "options": {"script": SCRIPTS[name]}} for name in SCRIPTS]
    (folder / "shoal.yaml").write_text(json.dumps({"routes": {"main": targets}, "agent": {"model": "mock"}}))


def test_routes_are_listed_shown_set_and_unset(shoal: Shoal, tmp_path: Path) -> None:
    """Those of the file, and live ones in their place; what cannot be a route is refused with the reason."""
    assert shoal("routes", "list").out == ""
    declare(tmp_path)
    assert shoal("routes", "list").out.split() == [
        *("NAME", "FROM", "STRATEGY", "TARGETS"),
        *("main", "shoal.yaml", "ordered", "scripted/bad,", "scripted/worse,", "scripted/good"),
    ]
    refused = shoal("routes", "set", "main", '["a", "a"]')
    assert (refused.code, "is there twice" in refused.err) == (2, True)
    assert shoal("routes", "set", "main", '{"targets": ["a", "b"], "strategy": "fastest"}').code == 0
    (listed,) = [json.loads(line) for line in shoal("routes", "list", "--json").out.splitlines()]
    assert (listed["source"], listed["route"]["strategy"]) == ("live", "fastest")
    shown = json.loads(shoal("routes", "show", "main").out)
    assert [target["name"] for target in shown["targets"]] == ["openai/a", "openai/b"]
    assert shoal("routes", "unset", "main").code == 0
    assert shoal("routes", "unset", "main").code == 4
    missing = shoal("routes", "show", "other")
    assert (missing.code, "there are: main" in missing.err) == (4, True)


def test_a_run_takes_a_route_and_says_where_it_went(shoal: Shoal, tmp_path: Path) -> None:
    """The answer alone on stdout; the switches, which are no start-over of anything shown, on stderr."""
    declare(tmp_path)
    outcome = shoal("run", "hi", "--route", "main")
    assert (outcome.code, outcome.out.strip()) == (0, "here you are")
    assert "⇢ scripted/worse (scripted/bad: overloaded)" in outcome.err
    assert "⇢ scripted/good (scripted/worse: unavailable)" in outcome.err
    assert "mock response" in shoal("run", "hi").out
    assert "mock response" in shoal("run", "hi", "--model", "mock").out
    unknown = shoal("run", "hi", "--route", "nope")
    assert (unknown.code, "there is no route 'nope'; there are: main" in unknown.err) == (1, True)


def test_a_task_is_submitted_with_a_route(shoal: Shoal) -> None:
    """It travels as an override of the agent's configuration."""
    (line,) = shoal("submit", "hi", "--route", "main", "--json").out.splitlines()
    task_id = json.loads(line)["id"]
    (shown,) = shoal("tasks", "show", task_id, "--json").out.splitlines()
    assert json.loads(shown)["task"]["overrides"] == {"route": "main"}
