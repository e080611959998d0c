"""Fields of declared objects as flags: which there are for each kind, and how they become values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from worker.cli.parameters import PAIR


class Flag(NamedTuple):
    """One flag of `create` and `update`."""

    name: str
    """`--tool`"""
    field: str
    """`tools`; of a text file's flag, the field that gets its text."""
    help: str
    form: str = "text"
    """`text`, `list` (repeatable), `number`, `json`, `pairs` (repeatable `NAME=VALUE`), or `file`."""
    metavar: str = ""


_WORDS = (
    Flag("--name", "name", "Its name for people; default: its slug."),
    Flag("--description", "description", "What it is for."),
)
AGENT_FLAGS = (
    *_WORDS,
    Flag("--model", "model", "The model; its name selects the provider."),
    Flag("--provider", "provider", "The provider's name; default: found from the model."),
    Flag("--route", "route", "A route for its model calls, instead of one model.", metavar="NAME"),
    Flag("--app", "app", "Its app: it may use what that has, and nothing else.", metavar="SLUG"),
    Flag("--llm", "llm", "One of its app's models; default: the first.", metavar="SLUG"),
    Flag("--plugin", "plugin", "The agent plugin that answers, instead of a model.", metavar="ID"),
    Flag("--system-prompt", "system_prompt", "The system prompt."),
    Flag("--system-prompt-file", "system_prompt", "A file that holds the system prompt.", "file", "FILE"),
    Flag("--tool", "tools", "A tool's name or pattern, within its app's. Repeatable.", "list"),
    Flag("--datasource", "datasources", "A data source, within its app's. Repeatable.", "list", "SLUG"),
    Flag("--group", "groups", "An access group that may use it; default: everybody. Repeatable.", "list", "SLUG"),
    Flag("--set", "settings", "A further setting, such as max_tokens=2000. Repeatable.", "pairs", "NAME=VALUE"),
    Flag("--budget", "budget", 'What it may spend, such as \'{"period": "month", "usd": 100}\'.', "json", "JSON"),
    Flag("--plugin-config", "config", "The plugin's configuration.", "json", "JSON"),
)
APP_FLAGS = (
    *_WORDS,
    Flag("--llm", "llms", "A model that it may use; the first is the default. Repeatable.", "list", "SLUG"),
    Flag("--tool", "tools", "A tool that it may use: a name or a pattern. Repeatable.", "list"),
    Flag("--datasource", "datasources", "A data source that it may use. Repeatable.", "list", "SLUG"),
    Flag("--scope", "scopes", "What its plugins are granted; default: all they ask for. Repeatable.", "list"),
)
LLM_FLAGS = (
    *_WORDS,
    Flag("--model", "model", "The model, as its provider names it."),
    Flag("--provider", "provider", "The provider's name; default: found from the model."),
    Flag("--allow", "allowed_models", "Another model that may be asked for: a name or pattern. Repeatable.", "list"),
    Flag("--route", "route", "A route for its calls, instead of one model.", metavar="NAME"),
    Flag("--base-url", "base_url", "The provider's address; default: its own.", metavar="URL"),
    Flag("--api-key-env", "api_key_env", "Name of the workers' variable that holds the key.", metavar="NAME"),
    Flag("--options", "options", "Settings that only this provider knows.", "json", "JSON"),
    Flag("--privacy-score", "privacy_score", "How private what it is told stays; higher is more.", "number"),
)
GROUP_FLAGS = _WORDS


def with_flags(flags: tuple[Flag, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command these flags; it takes their values as keywords and hands them to `fields_of`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for flag in reversed(flags):
            settings: dict[str, Any] = {"help": flag.help, "metavar": flag.metavar or None}
            if flag.form in ("list", "pairs"):
                settings["multiple"] = True
            if flag.form == "pairs":
                settings["type"] = PAIR
            elif flag.form == "number":
                settings["type"] = int
            elif flag.form == "file":
                settings["type"] = click.Path(path_type=Path, exists=True, dir_okay=False)
            function = click.option(flag.name, _parameter(flag), **settings)(function)
        return function

    return decorate


def fields_of(flags: tuple[Flag, ...], given: Mapping[str, Any], *, before: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that flags give. Settings come to those of `before`."""
    fields: dict[str, Any] = {}
    for flag in flags:
        value = given[_parameter(flag)]
        if value is None or value == ():
            continue
        if flag.field in fields:
            raise click.UsageError(f"{flag.name}: {flag.field} is given twice", click.get_current_context())
        fields[flag.field] = _value(flag, value, before)
    return fields


def _parameter(flag: Flag) -> str:
    return "flag_" + flag.name.lstrip("-").replace("-", "_")


def _value(flag: Flag, value: Any, before: Mapping[str, Any]) -> Any:
    match flag.form:
        case "list":
            return list(value)
        case "pairs":
            return {**before.get(flag.field, {}), **{name: _loose(text) for name, text in value}}
        case "json":
            return _json(flag, value)
        case "file":
            from worker.settings.prompt_file import read_prompt_file

            return read_prompt_file(str(value))
        case _:
            return value


def _loose(text: str) -> Any:
    """JSON where it is some, and otherwise the text itself."""
    import msgspec

    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _json(flag: Flag, text: str) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise click.UsageError(f"{flag.name}: {error}: give a JSON object", click.get_current_context()) from error
