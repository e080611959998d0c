"""A task in a file: its prompt, and whatever of the agent and its tools shall differ for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Struct

from queue_backends import InvalidTask, Task
from queue_backends.messages import convert_task
from worker.errors import BadSetting
from worker.settings.file import parse_yaml, read_section, read_value
from worker.settings.table import BY_KEY
from worker.settings.values import unknown_key

_AGENT_FIELDS = frozenset(key.partition(".")[2] for key in BY_KEY if key.startswith("agent."))
_TASK_FIELDS = frozenset(Task.__struct_fields__) - {"id", "attempt", "agent", "enqueued_at", "overrides"}
_TOOL_KEYS = ("mcp_servers", "webhook_tools", "python_tools")
SUFFIXES = (".yaml", ".yml", ".json")


class Job(Struct, frozen=True, kw_only=True):
    """What `shoal run` shall do."""

    task: Task
    settings: dict[str, object] = {}
    """Settings for this run, by key (`agent.model`, `python_tools`)."""


def read_job(path: Path) -> Job:
    """Read a task file, YAML or JSON. On top: `prompt` and other fields of a task; fields of an agent; tools; `agent`,
    which is the name of an agent, or a mapping of its fields.

    Raises `BadSetting` or `InvalidTask` with the file, the key and what is allowed.
    """
    document = dict(parse_yaml(path))
    if not document.get("prompt") and not document.get("history"):
        raise BadSetting(
            f"{path} has no prompt: add prompt: with the text for the agent; for a team, each document has a kind"
        )
    fields = {name: document.pop(name) for name in list(document) if name in _TASK_FIELDS}
    settings: dict[str, object] = {}
    for key in _TOOL_KEYS:
        if (value := document.pop(key, None)) is not None:
            settings[key] = read_value(path, BY_KEY[key], f"{path}: {key}", value)
    agent = document.pop("agent", None)
    if isinstance(agent, str):
        fields["agent"] = agent
    elif agent is not None:
        settings |= _agent(path, "agent", agent)
    for name in document:
        if name not in _AGENT_FIELDS:
            raise unknown_key(str(path), str(name), sorted({*_AGENT_FIELDS, *_TASK_FIELDS, *_TOOL_KEYS, "agent"}))
    settings |= _agent(path, "", document)
    return Job(task=_task(path, fields), settings=settings)


def _agent(path: Path, where: str, fields: Any) -> dict[str, object]:
    section = read_section(path, f"{path}: {where}".rstrip(": "), "agent", fields)
    return {f"agent.{name}": value for name, value in section.items()}


def _task(path: Path, fields: dict[str, Any]) -> Task:
    try:
        return convert_task(fields)
    except InvalidTask as error:
        raise InvalidTask(f"{path}: {error}") from error
