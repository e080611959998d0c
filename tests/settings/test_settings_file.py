"""`shoal.yaml`: keys, checks, agents, and what the error says."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.errors import BadSetting
from worker.settings import Settings, load_settings


def load(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> Settings:
    """The settings of a file with this text."""
    path = tmp_path / "shoal.yaml"
    path.write_text(text)
    return load_settings(environ or {}, file=path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("concurrency: 0", "concurrency: must be between 1 and 1000, got 0"),
        ("concurrency: '8'", "concurrency: expected a whole number (1 to 1000), got str '8'"),
        ("grace_s: true", "grace_s: expected a number (0 to 86400), got bool True"),
        ("concurency: 8", "unknown key 'concurency': did you mean 'concurrency'?"),
        ("backend: {lease_s: 0}", "backend.lease_s: must be between 1 and 3600, got 0"),
        ("backend: {leases: 9}", "backend: unknown key 'leases': did you mean 'lease_s'?"),
        ("agents: {a: {max_tokens: 0}}", "agents.a.max_tokens: must be between 1 and 200000, got 0"),
        ("agents: [a]", "agents: expected keys and values, got list"),
        ("agent: {tool_choice: always}", "agent.tool_choice: 'always' is not allowed: use auto | required | none"),
        ("agent: {thinking: {effort: 3}}", "agent.thinking.effort: expected `str`, got `int`"),
        ("mcp_servers: [{name: x, autType: s}]", "mcp_servers[0]: unknown key 'autType': did you mean 'auth_type'?"),
        ("mcp_servers: [{name: x, url: 3}]", "mcp_servers[0].url: expected `str`, got `int`"),
        ("a: 1\na: 2", "line 2: key 'a' is given twice"),
        ("- 1", "expected keys and values, got list"),
    ],
)
def test_a_wrong_value_is_named_with_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    """One line: the file, the key, the value, what is allowed."""
    with pytest.raises(BadSetting) as caught:
        load(tmp_path, text)
    assert str(caught.value) == f"{tmp_path / 'shoal.yaml'}: {message}"


def test_broken_yaml_names_its_line(tmp_path: Path) -> None:
    """A syntax error is one line, not a page."""
    with pytest.raises(BadSetting, match=r"shoal\.yaml: line 2: "):
        load(tmp_path, "agent: [\n")


def test_an_empty_file_and_empty_sections_change_nothing(tmp_path: Path) -> None:
    """A file of comments, or keys without values, is one that sets nothing."""
    assert load(tmp_path, "# later\nagent:\nagents:\nbackend:\nconcurrency:\n") == Settings()


def test_agents_take_what_they_leave_open_from_the_default_agent(tmp_path: Path) -> None:
    """Limits are inherited; prompt and name are not; provider and address only together with the model."""
    settings = load(
        tmp_path,
        """
        agent: {model: gpt-4o, provider: openai, base_url: "http://local/v1", system_prompt: Default, max_turns: 7}
        agents:
          same: {system_prompt: Same}
          other: {model: claude-sonnet-4-5, max_turns: 3}
        """,
    )
    same, other = settings.agents["same"], settings.agents["other"]
    assert (same.name, same.model, same.provider, same.base_url) == ("same", "gpt-4o", "openai", "http://local/v1")
    assert (same.system_prompt, same.max_turns) == ("Same", 7)
    assert (other.model, other.provider, other.base_url) == ("claude-sonnet-4-5", "", "")
    assert (other.system_prompt, other.max_turns) == ("", 3)


def test_an_agent_without_any_model_is_refused(tmp_path: Path) -> None:
    """Otherwise its tasks would fail one by one."""
    with pytest.raises(BadSetting, match=r"agents\.writer has no model"):
        load(tmp_path, "agents: {writer: {max_turns: 3}}")


def test_files_that_the_file_names_are_looked_up_beside_it(tmp_path: Path) -> None:
    """A settings file can be used from any working directory."""
    (tmp_path / "writer.md").write_text("You write.")
    (tmp_path / "tools.py").write_text("")
    settings = load(
        tmp_path,
        "agent: {model: m}\nagents: {w: {system_prompt_path: writer.md}}\npython_tools: [tools.py:add, pkg.mod:fn]",
    )
    assert settings.agents["w"].system_prompt == "You write."
    assert settings.python_tools == (str(tmp_path / "tools.py:add"), "pkg.mod:fn")


def test_tools_may_be_written_in_either_spelling(tmp_path: Path) -> None:
    """ark's camelCase and our snake_case mean the same."""
    settings = load(
        tmp_path,
        """
        mcp_servers:
          - {name: a, url: "http://a", auth_type: bearer, token_env_var: T, timeout_s: 5}
          - {name: b, url: "http://b", authType: bearer, tokenEnvVar: T, timeoutSeconds: 5}
        """,
    )
    first, second = settings.mcp_servers
    assert (first.auth_type, first.token_env_var, first.timeout_s) == ("bearer", "T", 5)
    assert (second.auth_type, second.token_env_var, second.timeout_s) == ("bearer", "T", 5)


def test_a_tool_that_could_never_work_is_refused_at_start(tmp_path: Path) -> None:
    """The tool's own check speaks, with the file's name before it."""
    with pytest.raises(BadSetting, match=r"shoal\.yaml: webhook_tools: webhook tool 'a b'"):
        load(tmp_path, 'webhook_tools: [{name: "a b", url: "http://x"}]')
