"""Puts the sources together: defaults, `shoal.yaml`, environment, flags. The later one wins, key by key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from providers import AgentConfig
from queue_backends import BackendOptions
from worker.budgets.rules import read_rules
from worker.errors import BadSetting
from worker.rate_limits.rules import read_limits
from worker.routing.route import read_routes
from worker.settings.addresses import parse_allowed
from worker.settings.approvals import ApprovalSettings
from worker.settings.artifacts import ArtifactSettings
from worker.settings.environment import read_environment
from worker.settings.file import inherit, read_file
from worker.settings.gateway import GatewaySettings
from worker.settings.model import Settings
from worker.settings.plugins import PluginSettings
from worker.settings.prompt_file import read_prompt_file
from worker.settings.table import BY_KEY
from worker.settings.values import check, unknown_key

CONFIG_VARIABLE = "SHOAL_CONFIG"
DEFAULT_FILE = Path("shoal.yaml")


def load_settings(
    environ: Mapping[str, str],
    *,
    file: Path | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """Build the settings. Without `file`, the one that `find_config` finds is read, if any.

    `overrides` are flags, by key (`concurrency`, `agent.model`); a None was not given. Raises `BadSetting`: one line
    that names the setting, its value and what is allowed.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    path = file or find_config(environ)
    if path is not None:
        values = read_file(path)
        sources = dict.fromkeys(values, str(path))
    agents: Mapping[str, Mapping[str, Any]] = values.pop("agents", {})
    for layer, layer_sources in (read_environment(environ), _flags(overrides or {})):
        if "agent.model" in layer and "agent.route" not in layer:
            values.pop("agent.route", None)  # whoever says later which model means that one
            sources.pop("agent.route", None)
        values.update(layer)
        sources.update(layer_sources)
    return _settings(values, agents, sources)


def find_config(environ: Mapping[str, str]) -> Path | None:
    """The file that `SHOAL_CONFIG` names, else `shoal.yaml` in the working directory, else None.

    Raises `BadSetting` if the variable names a file that is not there.
    """
    named = environ.get(CONFIG_VARIABLE, "")
    if not named:
        return DEFAULT_FILE if DEFAULT_FILE.is_file() else None
    path = Path(named).expanduser()
    if not path.is_file():
        raise BadSetting(f'invalid {CONFIG_VARIABLE} "{named}": there is no such file')
    return path


def _flags(overrides: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for key, value in overrides.items():
        if value is None:
            continue
        setting = BY_KEY.get(key)
        if setting is None:
            raise unknown_key("settings", key, list(BY_KEY))
        flag = flag_name(key)
        if key == "agent.system_prompt_path":
            key, value = "agent.system_prompt", read_prompt_file(str(value))
        values[key] = check(BY_KEY[key], flag, value)
        sources[key] = flag
    return values, sources


def flag_name(key: str) -> str:
    """How the command line spells a key: `--max-tokens` for `agent.max_tokens`."""
    words = key.rpartition(".")[2].removesuffix("_url").removesuffix("_s").removesuffix("_mb").removesuffix("_prompt")
    return "--" + words.replace("_", "-")


def _settings(values: dict[str, Any], agents: Mapping[str, Mapping[str, Any]], sources: dict[str, str]) -> Settings:
    default_agent = {"name": values.get("agent_name", ""), "model": ""} | _section(values, "agent")
    named = {
        name: AgentConfig(**{"name": name, "model": "", **inherit(default_agent, own)}) for name, own in agents.items()
    }
    if "budgets" in values:
        values = {**values, "budgets": read_rules(values["budgets"])}
    if "limits" in values:
        values = {**values, "limits": read_limits(values["limits"])}
    if "routes" in values:
        values = {**values, "routes": read_routes(values["routes"])}
    settings = Settings(
        **{key: value for key, value in values.items() if "." not in key},
        agent=AgentConfig(**default_agent),
        backend=BackendOptions(**_section(values, "backend")),
        plugins=PluginSettings(**_section(values, "plugins")),
        gateway=GatewaySettings(**_section(values, "gateway")),
        approval=ApprovalSettings(**_section(values, "approval")),
        artifacts=ArtifactSettings(**_section(values, "artifacts")),
        agents=named,
        sources=sources,
    )
    _check_together(settings)
    return settings


def _section(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    prefix = f"{section}."
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def _check_together(settings: Settings) -> None:
    settings.plugins.check()
    settings.gateway.check()
    settings.approval.check()
    settings.artifacts.check()
    parse_allowed(settings.allow_private_addresses)
    if settings.retry_max_s < settings.retry_base_s:
        raise BadSetting(
            f"retry_max_s (SHOAL_RETRY_MAX_SECONDS) is {settings.retry_max_s:g}, which is below retry_base_s "
            f"(SHOAL_RETRY_BASE_SECONDS), {settings.retry_base_s:g}: raise the first or lower the second"
        )
    for name, agent in settings.agents.items():
        if not (agent.model or agent.route):
            raise BadSetting(
                f"agents.{name} has no model: set agents.{name}.model or agents.{name}.route, or agent.model for all"
            )
