"""One option for all commands: documents as JSON or YAML, or tables for people."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.cli.cli_harness import Shoal
from worker.cli.app import COMMANDS

LISTS = [("backends",), ("settings", "list"), ("agent", "list"), ("dead", "list"), ("provider", "list", "--no-check")]


@pytest.mark.parametrize("command", LISTS, ids=" ".join)
def test_yaml_has_what_json_has(shoal: Shoal, command: tuple[str, ...]) -> None:
    """Proves that what is written as JSON is written as YAML, too, and that `-o json` is `--json`."""
    as_json = [json.loads(line) for line in shoal(*command, "--json").out.splitlines()]
    assert list(yaml.safe_load_all(shoal(*command, "-o", "yaml").out)) == as_json
    assert [json.loads(line) for line in shoal(*command, "-o", "json").out.splitlines()] == as_json
    assert shoal(*command, "-o", "table").out == shoal(*command).out


def test_what_does_not_exist_is_refused(shoal: Shoal) -> None:
    """Proves that another format is an error of usage that names those there are."""
    refused = shoal("backends", "-o", "xml")
    assert refused.code == 2
    assert "yaml" in refused.err


@pytest.mark.parametrize("command", [("graph",), ("usage", "export")], ids=" ".join)
def test_where_o_is_a_file_it_stays_one(shoal: Shoal, command: tuple[str, ...]) -> None:
    """Proves that the two commands which write a file keep their `-o`, and have the long option."""
    said = shoal(*command, "--help").out
    assert "-o, --output" in said
    assert "--print" in said
    assert "-o, --print" not in said


def test_every_command_has_the_option(shoal: Shoal) -> None:
    """Proves that none is left out: groups are asked for their first command."""
    for name in COMMANDS:
        said = shoal(name, "--help").out
        assert "--print" in said or "Commands:" in said, name
