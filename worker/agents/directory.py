"""Which configuration a task runs with: its agent's, with what the task itself may override."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from providers import AgentConfig
from queue_backends import InvalidTask, Task
from worker.errors import AgentNotFound

OVERRIDABLE = frozenset(
    {
        "max_run_tokens",
        "max_tokens",
        "max_turns",
        "model",
        "output_schema",
        "provider",
        "route",
        "stop",
        "system_prompt",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_p",
    }
)
"""What an engine may change for one task. Where a provider is reached, and with which key, is the worker's own."""


class AgentDirectory:
    """The agents that this worker runs."""

    def __init__(self, default: AgentConfig, named: Mapping[str, AgentConfig], *, default_name: str = "") -> None:
        self._default = default
        self._named = dict(named)
        if default_name:
            self._named.setdefault(default_name, default)
        self._only_default = not named

    def config_for(self, task: Task) -> AgentConfig:
        """The configuration of a task's run. A worker that declares no agents runs every task with its own, as ark's
        does, whatever name the task carries.

        Raises `AgentNotFound`, or `InvalidTask` for overrides that do not fit.
        """
        config = self._default
        if task.agent:
            found = self._named.get(task.agent)
            if found is None and not self._only_default:
                known = ", ".join(sorted(self._named))
                raise AgentNotFound(f"no agent {task.agent!r} is declared here; declared: {known}")
            config = found or config
        return overridden(config, task) if task.overrides else config


def overridden(config: AgentConfig, task: Task) -> AgentConfig:
    """`config` with the task's overrides. Raises `InvalidTask` naming the one that is not allowed or does not fit."""
    if forbidden := sorted(set(task.overrides) - OVERRIDABLE):
        raise InvalidTask(
            f"overrides {', '.join(forbidden)} are not allowed for a task; allowed: {', '.join(sorted(OVERRIDABLE))}"
        )
    given = task.overrides
    if config.route and "route" not in given and not given.keys().isdisjoint({"model", "provider"}):
        given = {**given, "route": ""}  # whoever names a model means that one
    try:
        return msgspec.convert({**msgspec.to_builtins(config), **given}, AgentConfig)
    except msgspec.ValidationError as error:
        raise InvalidTask(f"overrides do not fit: {error}") from error
