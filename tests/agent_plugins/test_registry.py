"""Where plugins are found, and what becomes of those that are broken."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from tests.agent_plugins.plugin_folders import write_plugin
from worker.agent_plugins.errors import BadPlugin, BadPluginConfig, PluginNotFound
from worker.agent_plugins.package import read_package
from worker.agent_plugins.python_runner import load_class
from worker.agent_plugins.registry import ENTRY_POINTS, AgentPlugins
from worker.agent_plugins.scaffold import write_package

ANSWER = "async def handle_message(self, request, stream):\n    await stream.content('hi')\n"


def test_plugins_of_a_folder_with_a_broken_one(plugins_dir: Path) -> None:
    """Given a good plugin, a broken one and a folder that is none, then the good one can be used, the broken one is
    there with its problem, and both are in the status that APIs show."""
    write_plugin(plugins_dir, ANSWER, schema={"type": "object", "properties": {"n": {"type": "integer"}}})
    write_plugin(plugins_dir, ANSWER, plugin_id="broken", version="")
    (plugins_dir / "other").mkdir()
    plugins = AgentPlugins.found(plugins_dir)
    assert [(each.id, each.is_usable) for each in plugins.all()] == [("broken", False), ("test-agent", True)]
    assert plugins.get("broken").problem.endswith("manifest version is required")
    with pytest.raises(BadPlugin, match=r"cannot be used: .*version is required"):
        plugins.usable("broken")
    with pytest.raises(PluginNotFound, match=r"no agent plugin 'nobody' is installed here; installed: broken, test-"):
        plugins.get("nobody")
    plugins.check_config("test-agent", {"n": 1})
    with pytest.raises(BadPluginConfig):
        plugins.check_config("test-agent", {"n": "one"})
    good = plugins.get("test-agent")
    assert plugins.by_number(good.number) is good
    assert good.status()["scopes"] == ["datasources.query", "kv.readwrite", "llms.proxy", "tools.execute"]


def test_a_package_as_it_was_written(plugins_dir: Path) -> None:
    """Given a package of `shoal plugin new` in the plugin folder, then its plugin is found inside, where it is."""
    folder, *_ = write_package("Weather Agent", plugins_dir)
    (found,) = AgentPlugins.found(plugins_dir).all()
    assert (found.id, found.problem, found.folder) == ("weather-agent", "", folder / "weather_agent")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """A wrong setting is logged and leaves the worker without plugins; it does not keep it from starting."""
    assert len(AgentPlugins.found(tmp_path / "nothing")) == 0


def test_installed_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a distribution with an entry point, then the manifest beside its module is found without importing it, and
    the class that it names is loaded; one without a manifest is there with its problem."""
    package = write_plugin(tmp_path, ANSWER, plugin_id="sample_agent_plugin")
    (package / "__init__.py").write_text("raise RuntimeError('imported too early')\n")
    (tmp_path / "bare_agent_plugin.py").write_text("")
    info = tmp_path / "sample-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sample\nVersion: 1.0\n")
    points = "sample = sample_agent_plugin.plugin:TestAgent\nbare = bare_agent_plugin:Nothing\n"
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{points}")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert {point.name for point in importlib.metadata.entry_points(group=ENTRY_POINTS)} >= {"sample", "bare"}
    plugins = AgentPlugins.found()
    found = plugins.get("sample_agent_plugin")
    assert (found.source, found.problem) == ("sample 1.0", "")
    assert "there is no plugin.manifest.json beside module" in plugins.get("bare").problem
    (package / "__init__.py").write_text("")
    assert load_class(found).__name__ == "TestAgent"


def test_modules_of_a_folder_import_each_other(plugins_dir: Path) -> None:
    """Given two plugins in folders that each have a module `words`, then each gets its own."""
    for name in ("one", "two"):
        folder = write_plugin(plugins_dir, "word = WORD\n" + ANSWER, plugin_id=name)
        code = (folder / "plugin.py").read_text()
        (folder / "plugin.py").write_text("from .words import WORD\n" + code)
        (folder / "words.py").write_text(f"WORD = {name!r}\n")
    plugins = AgentPlugins.found(plugins_dir)
    assert [load_class(plugins.get(name)).word for name in ("one", "two")] == ["one", "two"]  # type: ignore[attr-defined]  # the test's own


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nothing_of_that_name\n", "plugin cannot be imported: ModuleNotFoundError"),
        ("x = 1\n", "must have one subclass of AgentPlugin, it has none"),
        ("x = (\n", "plugin cannot be imported: SyntaxError"),
    ],
)
def test_code_that_cannot_be_used(plugins_dir: Path, code: str, said: str) -> None:
    """What is wrong with the module is said in one line."""
    folder = write_plugin(plugins_dir, ANSWER)
    (folder / "plugin.py").write_text(code)
    with pytest.raises(BadPlugin, match=said):
        load_class(read_package(folder))


def test_an_entry_in_the_manifest(plugins_dir: Path) -> None:
    """A plugin's module and class may have any name; one that is no plugin is refused."""
    folder = write_plugin(plugins_dir, ANSWER, entry="agent:Main")
    (folder / "agent.py").write_text("from worker.agent_plugins import AgentPlugin\nclass Main(AgentPlugin): ...\n")
    assert load_class(read_package(folder)).__name__ == "Main"
    (folder / "agent.py").write_text("Main = 3\n")
    folder = write_plugin(plugins_dir, ANSWER, plugin_id="second", entry="plugin:asyncio")
    with pytest.raises(BadPlugin, match=r"asyncio of .* is no subclass of AgentPlugin"):
        load_class(read_package(folder))
