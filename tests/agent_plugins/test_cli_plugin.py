"""`shoal plugin`: from an empty folder to an answer."""

from __future__ import annotations

import asyncio
import json
import runpy
from pathlib import Path

import pytest

from tests.agent_plugins.plugin_folders import write_plugin
from worker.cli import app


@pytest.fixture(autouse=True)
def _no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings file of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)


def test_a_new_plugin_is_valid_answers_and_passes_its_tests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given `shoal plugin new`, then what it wrote is valid, answers, is listed, and its own tests pass."""
    assert app.run(["plugin", "new", "Weather Agent", "--dir", str(tmp_path)]) == 0
    folder = tmp_path / "weather-agent"
    assert app.run(["plugin", "validate", str(folder)]) == 0
    assert "weather-agent 0.1.0 is fine: llms.proxy" in capsys.readouterr().out
    (script := tmp_path / "script.yaml").write_text("responses: {hello: it is sunny}\n")
    asked = [
        "plugin",
        "run",
        str(folder),
        "-m",
        "hello",
        "--agent-config",
        '{"greeting": "Ahoy"}',
        "--script",
        str(script),
    ]
    assert app.run(asked) == 0
    assert capsys.readouterr().out.strip() == "Ahoy! it is sunny"
    tests = runpy.run_path(str(folder / "tests" / "test_weather_agent.py"))
    ran = [asyncio.run(test()) for name, test in tests.items() if name.startswith("test_")]
    assert len(ran) == 3
    assert app.run(["plugin", "new", "Weather Agent", "--dir", str(tmp_path)]) == 1
    assert "is there already" in capsys.readouterr().err


def test_plugins_are_listed_with_their_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given a folder with a good and a broken plugin, then both are listed, as a table and as JSON."""
    write_plugin(tmp_path / "plugins", "x = 1\n")
    write_plugin(tmp_path / "plugins", "x = 1\n", plugin_id="broken", capabilities={})
    monkeypatch.setenv("SHOAL_AGENT_PLUGINS_DIR", str(tmp_path / "plugins"))
    assert app.run(["plugin", "list"]) == 0
    shown = capsys.readouterr().out
    assert "ready" in shown
    assert "at least one hook" in shown
    assert app.run(["plugin", "list", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["id"], line["is_active"]) for line in lines] == [("broken", False), ("test-agent", True)]


def test_validate_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Errors keep a plugin from working and give exit code 1; notes do not."""
    folder = write_plugin(tmp_path, "x = 1\n", permissions={"services": ["apps.read"]})
    assert app.run(["plugin", "validate", str(folder)]) == 1
    shown = capsys.readouterr().out
    assert "error: TestAgent has no method handle_message" in shown
    assert "note: scope 'apps.read' is none of this host's" in shown
    assert "note: there is no config.schema.json" in shown
    assert app.run(["plugin", "validate", str(tmp_path / "nothing")]) == 1
    assert "has no plugin.manifest.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--agent-config", "{"], 2, "--agent-config is no JSON"),
        (["--agent-config", "[]"], 2, "--agent-config must be a JSON object"),
        (["--agent-config", '{"n": "x"}'], 2, "config does not fit plugin 'test-agent': n: "),
        ([], 1, "no luck"),
    ],
)
def test_run_says_what_went_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    """What was asked for wrongly is exit code 2, a message that could not be answered 1."""
    body = "async def handle_message(self, request, stream):\n    await stream.error('no luck')\n"
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    folder = write_plugin(tmp_path, body, schema=schema)
    assert app.run(["plugin", "run", str(folder), "-m", "hello", "--no-llm", *arguments]) == code
    assert said in "".join(capsys.readouterr())


@pytest.mark.parametrize("name", ["", "123", "!!"])
def test_names_that_nothing_can_be_made_of(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A plugin's name becomes a folder, a module and a class: what cannot is refused."""
    assert app.run(["plugin", "new", name, "--dir", str(tmp_path)]) == 1
    assert "is no name for a plugin" in capsys.readouterr().err


def test_a_name_stays_within_its_folder(tmp_path: Path) -> None:
    """Nothing is written outside of the folder, whatever the name; a word of Python's gets another module."""
    assert app.run(["plugin", "new", "../class", "--dir", str(tmp_path / "here")]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert (tmp_path / "here" / "class" / "class_agent" / "plugin.py").is_file()
