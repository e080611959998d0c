"""Reads the environment. An empty variable is an unset one, as ark has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.settings.prompt_file import read_prompt_file
from worker.settings.table import SETTINGS
from worker.settings.values import from_text


def read_environment(environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings that variables give, by key, and the variable that gave each. Raises `BadSetting`."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in SETTINGS:
        text = environ.get(setting.variable, "") if setting.variable else ""
        if not text:
            continue
        values[setting.key] = from_text(setting, text)
        sources[setting.key] = setting.variable
    if path := values.pop("agent.system_prompt_path", ""):
        values["agent.system_prompt"] = read_prompt_file(path)
        sources["agent.system_prompt"] = sources.pop("agent.system_prompt_path")
    return values, sources
