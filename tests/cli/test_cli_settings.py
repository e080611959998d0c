"""`shoal settings`: against a real server."""

from __future__ import annotations

import io
import json

import pytest

from queue_backends import Backend
from tests.cli.cli_harness import Shoal, WithBackend
from worker.sealing import SEALED, VARIABLE

KEY = "plugin.anthropic.api_key"


def stored(with_backend: WithBackend, key: str) -> str:
    """What the store holds."""

    async def read(backend: Backend) -> bytes | None:
        return await backend.state.get(f"settings:{key}")

    return (with_backend(read) or b"").decode()


def test_what_is_set_is_listed_and_got_and_unset(shoal: Shoal) -> None:
    """The whole life of a setting; the exit codes tell whether it was there."""
    assert shoal("settings", "list").out == ""
    assert shoal("settings", "get", "llm.default_provider").code == 4
    assert shoal("settings", "set", "llm.default_provider", "scripted").code == 0
    assert shoal("settings", "set", "plugin.anthropic.base_url", "http://gateway:1").code == 0
    assert shoal("settings", "get", "llm.default_provider").out == "scripted\n"
    listed = shoal("settings", "list").out.splitlines()
    assert listed[0].split() == ["KEY", "VALUE"]
    assert [line.split() for line in listed[1:]] == [
        ["llm.default_provider", "scripted"],
        ["plugin.anthropic.base_url", "http://gateway:1"],
    ]
    assert len(shoal("settings", "list", "plugin.").out.splitlines()) == 2
    assert shoal("settings", "unset", "llm.default_provider").code == 0
    assert shoal("settings", "unset", "llm.default_provider").code == 4
    assert [json.loads(line)["key"] for line in shoal("settings", "list", "--json").out.splitlines()] == [
        "plugin.anthropic.base_url"
    ]


def test_a_secret_is_never_shown_and_sealed_at_rest(
    shoal: Shoal, with_backend: WithBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From stdin, so not even the shell's history has it."""
    monkeypatch.setenv(VARIABLE, "a long enough secret key")
    monkeypatch.setattr("sys.stdin", io.StringIO("sk-very-secret\n"))
    said = shoal("settings", "set", KEY, "-")
    assert said.code == 0
    assert "unencrypted" not in said.err
    assert stored(with_backend, KEY).startswith(SEALED)
    for command in (("list",), ("list", "--json"), ("get", KEY), ("get", KEY, "--json")):
        outcome = shoal("settings", *command)
        assert "****" in outcome.out
        assert "sk-very" not in said.out + said.err + outcome.out + outcome.err
    monkeypatch.delenv(VARIABLE)
    blind = shoal("settings", "get", KEY)
    assert blind.code == 4
    assert "SHOAL_SECRET_KEY is not set" in blind.err
    assert "SHOAL_SECRET_KEY is not set" in shoal("settings", "list").out


def test_without_a_key_the_reader_is_warned(shoal: Shoal, with_backend: WithBackend) -> None:
    """A secret in plain text is stored only with a warning; a reference is none."""
    assert "stored unencrypted" in shoal("settings", "set", KEY, "sk-plain").err
    assert stored(with_backend, KEY) == "sk-plain"
    assert shoal("settings", "get", KEY).out == "****\n"
    assert "unencrypted" not in shoal("settings", "set", KEY, "env:TEAM_KEY").err
    assert shoal("settings", "get", KEY).out == "env:TEAM_KEY\n"


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("llm.default_provider", "nobody", "no provider 'nobody' is registered"),
        ("plugin.anthropic.colour", "red", "it has: api_key, base_url"),
        ("colour.red", "x", "there is no setting 'colour.red'"),
        ("budgets.all", "{", "budgets.all"),
        ("limits.all", "{", "limits.all"),
        ("routes.all", "{", "routes.all"),
    ],
)
def test_what_cannot_be_set_is_an_error_of_use(shoal: Shoal, key: str, value: str, complaint: str) -> None:
    """Exit code 2, and a line that says what can be."""
    outcome = shoal("settings", "set", key, value)
    assert outcome.code == 2
    assert complaint in outcome.err
    assert outcome.out == ""


def test_a_state_that_nobody_else_has_is_said(shoal: Shoal) -> None:
    """A setting in memory is gone with the command."""
    outcome = shoal("settings", "set", "llm.default_provider", "scripted", "--queue", "memory://")
    assert outcome.code == 0
    assert "no worker hears of it" in outcome.err


def test_an_empty_stdin_is_an_error_of_use(shoal: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that brought nothing unsets nothing."""
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert shoal("settings", "set", KEY, "-").code == 2


def test_a_password_in_an_address_is_masked(shoal: Shoal) -> None:
    """An address is no secret, but may hold one."""
    shoal("settings", "set", "plugin.anthropic.base_url", "http://me:pa55@gateway:1")
    assert "pa55" not in shoal("settings", "list").out + shoal("settings", "get", "plugin.anthropic.base_url").out
