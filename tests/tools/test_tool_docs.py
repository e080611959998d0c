"""What docs/tools.md shows is what works."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from worker.settings.load import load_settings
from worker.tools import parse_mcp_servers, parse_webhook_tools

PAGE = (Path(__file__).parents[2] / "docs" / "tools.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_python_blocks_run_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The function of the first block is called by the program of the last."""
    tools, program = blocks("python")
    (tmp_path / "shop_tools.py").write_text(tools)
    (tmp_path / "program.py").write_text(program)
    monkeypatch.chdir(tmp_path)

    runpy.run_path("program.py", run_name="__main__")

    assert capsys.readouterr().out == "['price', 'reserve']\n1.8\n"


def test_the_yaml_blocks_are_settings(tmp_path: Path) -> None:
    """Each is read without a complaint, and declares what the text says."""
    file = tmp_path / "shoal.yaml"
    file.write_text("\n".join(blocks("yaml")))
    (tmp_path / "shop_tools.py").touch()

    settings = load_settings(file=file, environ={"AGENT_MODEL": "mock", "AGENT_SYSTEM_PROMPT": "x"})

    assert [tool.name for tool in settings.webhook_tools] == ["create_ticket"]
    assert [(server.name, server.kind) for server in settings.mcp_servers] == [("time", "stdio"), ("search", "http")]
    assert settings.python_tools == (str(tmp_path / "shop_tools.py"),)


def test_the_environment_variables_are_arks_json() -> None:
    """Both values parse as they stand."""
    values = dict(re.findall(r"export (\w+)='(.*?)'\n", "".join(blocks("sh")), re.DOTALL))

    assert parse_webhook_tools(values["AGENT_WEBHOOK_TOOLS"])[0].schema["required"] == ["title"]
    assert parse_mcp_servers(values["AGENT_MCP_SERVERS"])[0].auth_type == "bearer"
