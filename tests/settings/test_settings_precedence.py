"""Which source wins, where a value came from, and what an ark worker must have."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.errors import BadSetting
from worker.settings import find_config, load_settings

ARK = {"AGENT_MODEL": "gpt-4o", "AGENT_SYSTEM_PROMPT": "You write.", "TASK_QUEUE_URL": "redis://r"}


def test_defaults_then_file_then_environment_then_flags(tmp_path: Path) -> None:
    """Each key is decided by itself; the later source wins."""
    path = tmp_path / "shoal.yaml"
    path.write_text("concurrency: 1\ngrace_s: 1\nagent: {model: from-file, max_tokens: 1}\n")
    environ = {"SHOAL_CONFIG": str(path), "SHOAL_GRACE_SECONDS": "2", "AGENT_MAX_TOKENS": "2"}
    settings = load_settings(environ, overrides={"agent.max_tokens": 3, "timeout_s": None})
    assert (settings.concurrency, settings.grace_s, settings.agent.max_tokens) == (1, 2, 3)
    assert (settings.agent.model, settings.timeout_s) == ("from-file", 120)
    assert settings.sources["concurrency"] == str(path)
    assert settings.sources["grace_s"] == "SHOAL_GRACE_SECONDS"
    assert settings.sources["agent.max_tokens"] == "--max-tokens"


def test_a_wrong_flag_is_named_as_it_was_typed() -> None:
    """Flags obey the same bounds."""
    with pytest.raises(BadSetting, match=r"^--concurrency: must be between 1 and 1000, got 0$"):
        load_settings({}, overrides={"concurrency": 0})


def test_the_file_in_the_working_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """./shoal.yaml, if it is there and SHOAL_CONFIG names no other."""
    monkeypatch.chdir(tmp_path)
    assert find_config({}) is None
    Path("shoal.yaml").write_text("concurrency: 9")
    assert load_settings({}).concurrency == 9


@pytest.mark.parametrize("missing", ["AGENT_MODEL", "AGENT_SYSTEM_PROMPT"])
def test_an_ark_worker_needs_its_variables(missing: str) -> None:
    """With TASK_QUEUE_URL set, ark's demands hold, in ark's words."""
    environ = {name: value for name, value in ARK.items() if name != missing}
    with pytest.raises(BadSetting, match=f"^required env var {missing} is not set$"):
        load_settings(environ).require_ark()


def test_an_operator_that_forgot_the_queue_is_told() -> None:
    """A namespace means that an operator deployed it; it must not fall back to a queue of its own."""
    environ = {"AGENT_MODEL": "m", "AGENT_SYSTEM_PROMPT": "p", "AGENT_NAMESPACE": "ns"}
    with pytest.raises(BadSetting, match=r"^required env var TASK_QUEUE_URL is not set$"):
        load_settings(environ).require_ark()


def test_ark_has_no_demands_on_others(tmp_path: Path) -> None:
    """Nothing configured, a complete ark set, or agents in the file: all may start."""
    path = tmp_path / "shoal.yaml"
    path.write_text("agent: {model: m}\nagents: {w: {system_prompt: Write.}}")
    load_settings({}).require_ark()
    load_settings(ARK).require_ark()
    load_settings({"TASK_QUEUE_URL": "redis://r"}, file=path).require_ark()


def test_secrets_do_not_show() -> None:
    """Passwords in URLs, options of providers, environments of MCP servers: none appears in the repr."""
    settings = load_settings(
        {
            "TASK_QUEUE_URL": "redis://user:hunter22@host:6379/0?stream={a:0}&password=hunter22",
            "SHOAL_STATE_URL": "redis://:hunter22@host",
            "AGENT_TEAM_ROUTES": '{"editor": "redis://:hunter22@host?stream=e"}',
            "SHOAL_PROVIDER_OPTIONS": '{"headers": {"authorization": "hunter22"}}',
            "AGENT_MCP_SERVERS": '[{"name":"s","command":"c","args":["--pw=hunter22"],"env":{"PIN":"hunter22"}}]',
            "AGENT_WEBHOOK_TOOLS": '[{"name":"w","url":"http://u:hunter22@w/?token=hunter22"}]',
            "AGENT_MAX_TOKENS": "77",
        }
    )
    assert "hunter22" not in repr(settings)
    assert "redis://user:***@host:6379/0?stream={a:0}" in repr(settings)
    assert "77" in repr(settings)
