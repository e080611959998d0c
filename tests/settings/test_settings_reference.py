"""The table of settings, the Structs, the documentation and the example agree."""

from __future__ import annotations

from pathlib import Path

from providers import AgentConfig
from queue_backends import BackendOptions
from worker.settings import SETTINGS, Settings, load_settings
from worker.settings.approvals import ApprovalSettings
from worker.settings.artifacts import ArtifactSettings
from worker.settings.gateway import GatewaySettings
from worker.settings.plugins import PluginSettings
from worker.settings.reference import markdown

ROOT = Path(__file__).parents[2]


def test_every_field_is_a_setting() -> None:
    """A field that somebody adds to a Struct has to be documented and settable."""
    keys = {setting.key for setting in SETTINGS}
    fields = {f"agent.{name}" for name in AgentConfig.__struct_fields__}
    fields |= {f"backend.{name}" for name in BackendOptions.__struct_fields__}
    fields |= {f"plugins.{name}" for name in PluginSettings.__struct_fields__}
    fields |= {f"gateway.{name}" for name in GatewaySettings.__struct_fields__}
    fields |= {f"approval.{name}" for name in ApprovalSettings.__struct_fields__}
    fields |= {f"artifacts.{name}" for name in ArtifactSettings.__struct_fields__}
    others = {"agent", "agents", "approval", "artifacts", "backend", "gateway", "plugins", "sources"}
    fields |= set(Settings.__struct_fields__) - others
    assert fields - keys == set()
    assert keys - fields == {"agent.system_prompt_path"}


def test_names_are_unique() -> None:
    """No variable feeds two settings."""
    variables = [setting.variable for setting in SETTINGS if setting.variable]
    assert len(variables) == len(set(variables))


def test_the_documentation_has_the_present_table() -> None:
    """docs/configuration.md holds what `python -m worker.settings.reference` prints."""
    assert markdown() in (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_the_example_is_valid() -> None:
    """examples/shoal.yaml can be used as it is."""
    settings = load_settings({}, file=ROOT / "examples" / "shoal.yaml")
    assert settings.agents
