"""Environment variables: ark's names, bounds and error texts, and ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.errors import BadSetting
from worker.settings import Settings, load_settings


def test_nothing_configured_gives_the_defaults() -> None:
    """Without any source, the worker runs on the embedded queue with ark's defaults, and 100 tasks at once."""
    settings = load_settings({})
    assert (settings.queue_url, settings.concurrency, settings.timeout_s, settings.max_retries) == ("", 100, 120, 3)
    assert (settings.agent.max_tokens, settings.health_port, settings.grace_s) == (8000, 8080, 30)
    assert settings == Settings()


def test_every_source_of_a_worker_under_ark_is_read() -> None:
    """The variables that an ark operator injects arrive in their fields."""
    settings = load_settings(
        {
            "AGENT_MODEL": "gpt-4o",
            "AGENT_SYSTEM_PROMPT": "You write.",
            "AGENT_PROVIDER": "openai",
            "TASK_QUEUE_URL": "redis:6379?stream=ns.team.writer",
            "STREAM_CHANNEL_URL": "redis://other",
            "AGENT_MAX_TOKENS": "500",
            "AGENT_MAX_CONCURRENT_TASKS": "5",
            "AGENT_TEAM_ROUTES": '{"editor": "redis:6379?stream=ns.team.editor"}',
            "AGENT_MCP_SERVERS": '[{"name":"s","url":"http://s/mcp","authType":"bearer","tokenEnvVar":"T"}]',
            "AGENT_WEBHOOK_TOOLS": '[{"name":"w","url":"http://w","inputSchema":"{}"}]',
            "AGENT_DAILY_TOKEN_LIMIT": "100000",
            "AGENT_NAMESPACE": "ns",
            "AGENT_NAME": "writer",
            "POD_NAME": "writer-0",
        }
    )
    assert (settings.agent.model, settings.agent.system_prompt, settings.agent.max_tokens) == (
        "gpt-4o",
        "You write.",
        500,
    )
    assert (settings.agent.name, settings.namespace, settings.daily_token_limit) == ("writer", "ns", 100_000)
    assert (settings.concurrency, settings.backend.consumer) == (5, "writer-0")
    assert settings.mcp_servers[0].token_env_var == "T"
    assert settings.webhook_tools[0].name == "w"
    assert settings.team_routes == {"editor": "redis:6379?stream=ns.team.editor"}


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("AGENT_MAX_TOKENS", "0", "AGENT_MAX_TOKENS must be between 1 and 200000, got 0"),
        ("AGENT_MAX_TOKENS", "200001", "AGENT_MAX_TOKENS must be between 1 and 200000, got 200001"),
        ("AGENT_TIMEOUT_SECONDS", "86401", "AGENT_TIMEOUT_SECONDS must be between 1 and 86400, got 86401"),
        ("AGENT_MAX_RETRIES", "-1", "AGENT_MAX_RETRIES must be between 0 and 100, got -1"),
        ("AGENT_MAX_CONCURRENT_TASKS", "1001", "AGENT_MAX_CONCURRENT_TASKS must be between 1 and 1000, got 1001"),
        ("AGENT_DAILY_TOKEN_LIMIT", "-5", "AGENT_DAILY_TOKEN_LIMIT must be non-negative, got -5"),
        ("SHOAL_LEASE_SECONDS", "0.5", "SHOAL_LEASE_SECONDS must be between 1 and 3600, got 0.5"),
        ("SHOAL_LEASE_SECONDS", "nan", "SHOAL_LEASE_SECONDS must be between 1 and 3600, got nan"),
        ("SHOAL_DEAD_LIMIT", "0", "SHOAL_DEAD_LIMIT must be at least 1, got 0"),
    ],
)
def test_a_value_out_of_bounds_is_named_with_its_bounds(variable: str, value: str, message: str) -> None:
    """The error is ark's text, word for word, for ark's variables, and of the same form for ours."""
    with pytest.raises(BadSetting) as caught:
        load_settings({variable: value})
    assert str(caught.value) == message


@pytest.mark.parametrize("value", ["abc", "1.5", "1_000", " 7", "٣", "1e3"])
def test_a_whole_number_is_digits_only(value: str) -> None:
    """What Python's int() would quietly accept, ark refuses, and so do we."""
    with pytest.raises(BadSetting, match=f'^invalid AGENT_MAX_TOKENS "{value}": not a whole number'):
        load_settings({"AGENT_MAX_TOKENS": value})


@pytest.mark.parametrize(
    ("variable", "value", "beginning"),
    [
        ("AGENT_MCP_SERVERS", "{", "invalid AGENT_MCP_SERVERS JSON: "),
        ("AGENT_MCP_SERVERS", '[{"url": "http://x"}]', "invalid AGENT_MCP_SERVERS JSON: "),
        ("AGENT_WEBHOOK_TOOLS", "[1]", "invalid AGENT_WEBHOOK_TOOLS JSON: "),
        ("AGENT_TEAM_ROUTES", "[]", "invalid AGENT_TEAM_ROUTES JSON: expected "),
        ("AGENT_TEAM_ROUTES", "{x}", "invalid AGENT_TEAM_ROUTES JSON: JSON is malformed"),
        ("AGENT_INPUT_ARTIFACTS", "{x}", "invalid AGENT_INPUT_ARTIFACTS JSON: JSON is malformed"),
        ("SHOAL_PRICES", '{"m": 1}', "invalid SHOAL_PRICES JSON: "),
        ("SHOAL_TEMPERATURE", "hot", 'invalid SHOAL_TEMPERATURE "hot": not a number (0 to 2)'),
        ("SHOAL_DROP_STALE", "maybe", 'invalid SHOAL_DROP_STALE "maybe": use 1, true, yes, on'),
        ("SHOAL_LOG_LEVEL", "loud", 'invalid SHOAL_LOG_LEVEL "loud": use debug | info | warning | error'),
        ("SHOAL_CONFIG", "/nowhere/shoal.yaml", 'invalid SHOAL_CONFIG "/nowhere/shoal.yaml": there is no such file'),
    ],
)
def test_what_cannot_be_read_is_one_line_that_names_it(variable: str, value: str, beginning: str) -> None:
    """Each kind of variable has its own error, on one line."""
    with pytest.raises(BadSetting) as caught:
        load_settings({variable: value})
    assert str(caught.value).startswith(beginning)
    assert "\n" not in str(caught.value)


def test_an_empty_variable_is_an_unset_one() -> None:
    """ark's rule; operators inject empty strings freely."""
    assert load_settings({"AGENT_MAX_TOKENS": "", "AGENT_MCP_SERVERS": "", "SHOAL_CONFIG": ""}) == Settings()


def test_lists_switches_and_letter_case() -> None:
    """Commas separate lists, switches have many spellings, choices any letter case."""
    settings = load_settings(
        {"SHOAL_PYTHON_TOOLS": "a:b, c.py,", "SHOAL_DROP_STALE": "Yes", "SHOAL_LOG_LEVEL": "DEBUG"}
    )
    assert (settings.python_tools, settings.drop_stale, settings.log_level) == (("a:b", "c.py"), True, "debug")


def test_the_prompt_file_wins_and_is_trimmed(tmp_path: Path) -> None:
    """AGENT_SYSTEM_PROMPT_PATH beats AGENT_SYSTEM_PROMPT."""
    path = tmp_path / "prompt.md"
    path.write_text("\n  From a file.\n")
    environ = {"AGENT_SYSTEM_PROMPT": "From a variable.", "AGENT_SYSTEM_PROMPT_PATH": str(path)}
    assert load_settings(environ).agent.system_prompt == "From a file."


def test_a_prompt_file_that_is_missing_or_empty_is_an_error(tmp_path: Path) -> None:
    """In ark's words."""
    empty = tmp_path / "empty.md"
    empty.write_text(" \n")
    with pytest.raises(BadSetting, match=f"^system prompt file {empty} is empty$"):
        load_settings({"AGENT_SYSTEM_PROMPT_PATH": str(empty)})
    with pytest.raises(BadSetting, match=r"^reading system prompt from /nowhere: "):
        load_settings({"AGENT_SYSTEM_PROMPT_PATH": "/nowhere"})


def test_retry_waits_have_to_fit_together() -> None:
    """A maximum below the first wait is a mistake."""
    with pytest.raises(BadSetting, match=r"retry_max_s .* is 5, which is below retry_base_s .* 9"):
        load_settings({"SHOAL_RETRY_BASE_SECONDS": "9", "SHOAL_RETRY_MAX_SECONDS": "5"})
