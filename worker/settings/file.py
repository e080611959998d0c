"""Reads `shoal.yaml`: the same keys as `Settings`, nested."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from worker.errors import BadSetting
from worker.nesting import check_nesting
from worker.settings.prompt_file import read_prompt_file
from worker.settings.setting import Setting
from worker.settings.table import BY_KEY
from worker.settings.values import check, unknown_key
from worker.tools.config import McpServer, WebhookTool, check_mcp_servers, check_webhook_tools

SECTIONS = ("backend", "agent", "plugins", "gateway", "approval", "artifacts")
_PATHS = {
    "agent_plugins_dir",
    "plugins.dir",
    "plugins.tls_cert",
    "plugins.tls_key",
    "plugins.tls_ca",
    "gateway.tls_cert",
    "gateway.tls_key",
}
_TOP_LEVEL = sorted({key.partition(".")[0] for key in BY_KEY} | {"agents"})
_AGENT_FIELDS = sorted(key.partition(".")[2] for key in BY_KEY if key.startswith("agent."))
_ACCESS = {
    "description": "agent_descriptions",
    "groups": "agent_groups",
    "loop_policy": "agent_loop_policies",
}
"""What an agent of `agents:` may have beside the fields of its configuration -> the setting that is the same."""
_NOT_INHERITED = {"name", "system_prompt", "output_schema"}
_VENDOR_FIELDS = {"provider", "base_url", "api_key_env", "options", "route"}


def read_file(path: Path) -> dict[str, Any]:
    """The settings of the file by key, checked; `agents` is a mapping of names to such mappings of fields.

    Raises `BadSetting`: one line with the file, the key, the value and what is allowed.
    """
    document = parse_yaml(path)
    values: dict[str, Any] = {}
    for key, value in document.items():
        where = f"{path}: {key}"
        if key == "agents":
            agents, access = _agents(path, where, value)
            if agents:
                values["agents"] = agents
            for field, of_agents in access.items():
                values[field] = {**values.get(field, {}), **of_agents}
        elif key in SECTIONS:
            for field, item in read_section(path, where, key, value).items():
                values[f"{key}.{field}"] = item
        elif key in BY_KEY:
            if value is not None:
                read = read_value(path, BY_KEY[key], where, value)
                values[key] = {**read, **values[key]} if key in values else read
        else:
            raise unknown_key(str(path), str(key), _TOP_LEVEL)
    return values


def read_section(path: Path, where: str, section: str, value: Any) -> dict[str, Any]:
    """The fields of `backend`, `agent` or one of the `agents`, checked. An empty field (null) counts as absent.

    Raises `BadSetting`.
    """
    fields: dict[str, Any] = {}
    for name, item in _mapping(where, value).items():
        setting = BY_KEY.get(f"{section}.{name}")
        if setting is None:
            known = [key.partition(".")[2] for key in BY_KEY if key.startswith(f"{section}.")]
            raise unknown_key(where, str(name), known)
        if item is not None:
            fields[str(name)] = read_value(path, setting, f"{where}.{name}", item)
    if prompt_path := fields.pop("system_prompt_path", ""):
        fields["system_prompt"] = read_prompt_file(prompt_path, beside=path)
    return fields


def inherit(agent: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A named agent's fields, with what it leaves open taken from the default agent.

    Its prompt and schema are its own affair; and if it names its model, so are the provider, its address and the route.
    """
    left_out = _NOT_INHERITED | (_VENDOR_FIELDS if "model" in own else set())
    return {name: value for name, value in agent.items() if name not in left_out} | dict(own)


def _agents(path: Path, where: str, value: Any) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Each agent's fields; and by setting, what its description is and who sees it."""
    agents: dict[str, dict[str, Any]] = {}
    access: dict[str, dict[str, Any]] = {}
    for name, given in _mapping(where, value).items():
        if not isinstance(name, str) or not name.strip():
            raise BadSetting(f"{where}: {name!r} is no name for an agent: use text")
        fields = dict(_mapping(f"{where}.{name}", given))
        for field, setting in _ACCESS.items():
            if (item := fields.pop(field, None)) is not None:
                checked = read_value(path, BY_KEY[setting], f"{where}.{name}.{field}", {name: item})
                access.setdefault(setting, {}).update(checked)
        agents[name] = read_section(path, f"{where}.{name}", "agent", fields)
    return agents, access


def read_value(path: Path, setting: Setting, where: str, value: Any) -> Any:
    """One value of the file, checked; what names another file is looked up beside this one.

    Raises `BadSetting`.
    """
    if setting.key == "mcp_servers":
        return _checked(where, check_mcp_servers, check(setting, where, _renamed(where, value, McpServer)))
    if setting.key == "webhook_tools":
        return _checked(where, check_webhook_tools, check(setting, where, _renamed(where, value, WebhookTool)))
    if setting.type == tuple[str, ...] and isinstance(value, str):
        value = [value]
    checked = check(setting, where, value)
    if setting.key in _PATHS and checked:
        return str(path.parent / Path(checked).expanduser())
    return tuple(_beside(path, reference) for reference in checked) if setting.key == "python_tools" else checked


def _beside(path: Path, reference: str) -> str:
    """A reference to a Python file (`tools.py`, `tools.py:name`), relative to the file that makes it."""
    near = path.parent / reference.partition(".py")[0]
    is_file = ".py" in reference and near.with_name(near.name + ".py").is_file()
    return str(path.parent / reference) if is_file else reference


def _checked(where: str, checker: Any, values: Any) -> Any:
    try:
        return checker(values)
    except BadSetting as error:
        raise BadSetting(f"{where}: {error}") from error


def _renamed(where: str, items: Any, struct: type[McpServer] | type[WebhookTool]) -> Any:
    """List items with ark's names of their fields, whether they were written so or in our snake case."""
    if not isinstance(items, list):
        return items
    names = dict(zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True))
    known = {**names, **{name: name for name in names.values()}}
    renamed = []
    for index, item in enumerate(items):
        fields = {}
        for name, value in _mapping(f"{where}[{index}]", item).items():
            if name not in known:
                raise unknown_key(f"{where}[{index}]", str(name), list(names))
            fields[known[name]] = value
        renamed.append(fields)
    return renamed


def _mapping(where: str, value: Any) -> Mapping[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadSetting(f"{where}: expected keys and values, got {type(value).__name__}")
    return value


def parse_yaml(path: Path) -> Mapping[Any, Any]:
    """The file's one document, a mapping; an empty file is an empty one. JSON is YAML too.

    Raises `BadSetting` with file and line for what cannot be read; a key that is given twice is an error.
    """
    documents = parse_documents(path)
    if len(documents) > 1:
        raise BadSetting(f"{path}: expected a single document, found {len(documents)}: leave out the lines of ---")
    return documents[0] if documents else {}


def parse_documents(path: Path) -> list[Mapping[Any, Any]]:
    """The file's documents, each a mapping; empty ones are left out. Raises `BadSetting` as `parse_yaml`, also for what
    is nested too deeply or, by its aliases, enormous."""
    import yaml  # only who has a file pays for the import

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            seen: set[Hashable] = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if not isinstance(key, Hashable):
                    continue  # the superclass refuses it with a good message
                if key in seen:
                    raise yaml.MarkedYAMLError(problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark)
                seen.add(key)
            return super().construct_mapping(node, deep=deep)

    try:
        found = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader))
    except OSError as error:
        raise BadSetting(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadSetting(f"cannot read {path}: it is no UTF-8 text (byte {error.start})") from error
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        raise BadSetting(f"{path}:{line} {error.problem}") from error
    except yaml.YAMLError as error:
        raise BadSetting(f"{path}: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise BadSetting(f"{path}: it is nested too deeply") from error
    except ValueError as error:  # a date or a number that cannot be one
        raise BadSetting(f"{path}: {error}: put it in quotes if it is text") from error
    for index, document in enumerate(found):
        try:
            check_nesting(document)
        except ValueError as error:
            raise BadSetting(f"{path}, document {index + 1}: {error}") from error
    return [_mapping(str(path), document) for document in found if document is not None]
