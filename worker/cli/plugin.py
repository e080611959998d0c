"""`shoal plugin`: agent plugins, from an empty folder to an answer."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.failures import FAILED, OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.parameters import DURATION
from worker.cli.screen import Cell, Column

if TYPE_CHECKING:
    from queue_backends import TaskResult
    from worker.settings import Settings

_PATH = click.Path(path_type=Path)


@click.group(help="Agent plugins: agents that are code. See docs/agent-plugins.md.")
def plugin() -> None:
    """The group; each command has its own options."""


@plugin.command(
    "new",
    help="Write a new plugin: a package with manifest, schema, code, tests and README.\n\n"
    + examples("shoal plugin new weather-agent", "shoal plugin new 'Weather Agent' --dir plugins"),
)
@click.argument("name")
@click.option("--dir", "parent", type=_PATH, default=Path(), help="Where its folder comes.  [default: here]")
@shoal_options
def new(call: Invocation, name: str, parent: Path) -> int:
    """Exit code 1 if the folder is there already, or nothing can be made of the name."""
    from worker.agent_plugins.scaffold import write_package

    folder, *files = write_package(name, parent)
    if call.screen.as_json:
        call.screen.json({"folder": str(folder), "files": [str(path.relative_to(folder)) for path in files]})
        return OK
    for path in files:
        call.screen.line(str(path))
    call.screen.note(f'next: shoal plugin run {folder} --message "hello"')
    return OK


@plugin.command(
    "validate",
    help="Check a plugin's manifest, schema and class.\n\n" + examples("shoal plugin validate plugins/weather-agent"),
)
@click.argument("path", type=_PATH)
@shoal_options
def validate(call: Invocation, path: Path) -> int:
    """Exit code 1 if anything keeps it from working."""
    from worker.agent_plugins.validation import validate as check

    package, remarks = check(path)
    is_good = not any(remark.is_error for remark in remarks)
    if call.screen.as_json:
        shown = [{"text": remark.text, "is_error": remark.is_error} for remark in remarks]
        call.screen.json({"ok": is_good, "remarks": shown, "plugin": package.status() if package else None})
        return OK if is_good else FAILED
    for remark in remarks:
        call.screen.line(
            f"{'error' if remark.is_error else 'note'}: {remark.text}", "bad" if remark.is_error else "warn"
        )
    if package is not None and is_good:
        scopes = ", ".join(sorted(package.scopes)) or "no services"
        call.screen.line(f"{package.id} {package.manifest.version} is fine: {scopes}", "good")
    return OK if is_good else FAILED


@plugin.command(
    "list",
    help="List the plugins that workers with these settings find.\n\n" + examples("shoal plugin list"),
)
@shoal_options
def list_plugins(call: Invocation) -> int:
    """One table, or one JSON document a line."""
    return call.wait_for(_list(call))


async def _list(call: Invocation) -> int:
    from worker.agent_plugins.registry import AgentPlugins

    packages = AgentPlugins.of(call.settings()).all()
    if call.screen.as_json:
        for package in packages:
            call.screen.json(package.status())
        return OK
    columns = (
        Column("plugin"),
        Column("version"),
        Column("runs as", style="dim"),
        Column("scopes"),
        Column("from", style="dim"),
        Column("state", wide=True),
    )
    rows = [
        (
            package.id,
            package.manifest.version,
            package.manifest.runner_kind,
            ", ".join(sorted(package.scopes)),
            package.source,
            Cell(package.problem or "ready", "bad" if package.problem else "good"),
        )
        for package in packages
    ]
    call.screen.table(columns, rows, empty="no agent plugins: install some, or set SHOAL_AGENT_PLUGINS_DIR")
    return OK


@plugin.command(
    "run",
    help="Ask a plugin, here and now: a worker in this process answers, and nothing of it is kept. It gets the model "
    "of the settings, or --model; with --script, a scripted one.\n\n"
    + examples(
        'shoal plugin run plugins/weather-agent --message "How is the weather?"',
        'shoal plugin run . --message hello --agent-config \'{"greeting": "Ahoy"}\' --model gpt-4o-mini',
        "shoal plugin run . --message hello --script answers.yaml",
    ),
)
@click.argument("path", type=_PATH)
@click.option("--message", "-m", required=True, help="What to say to it.")
@click.option("--agent-config", metavar="JSON", default="{}", help="The agent's configuration.")
@click.option("--model", help="The model that it may call.  [env: AGENT_MODEL]")
@click.option("--provider", help="The model's provider; default: found from the model.  [env: AGENT_PROVIDER]")
@click.option("--script", type=click.Path(exists=True, dir_okay=False), help="Answers of a scripted model.")
@click.option("--no-llm", is_flag=True, help="Give it no model.")
@click.option("--tools", multiple=True, metavar="REF", help="Python tools: a file or module:name. Repeatable.")
@click.option("--timeout", "timeout_s", type=DURATION, help="Give up after this time.  [env: AGENT_TIMEOUT_SECONDS]")
@shoal_options
def run(call: Invocation, path: Path, message: str, agent_config: str, **options: Any) -> int:
    """Exit code 1 if the message could not be answered."""
    flags: dict[str, object] = {
        "agent.model": "scripted" if options["script"] else options["model"],
        "agent.provider": "scripted" if options["script"] else options["provider"],
        "timeout_s": None if options["timeout_s"] is None else max(1, round(options["timeout_s"])),
        "max_retries": 0,
    }
    settings = call.settings({key: value for key, value in flags.items() if value is not None})
    return call.wait_for(_run(call, settings, path, message, _config(agent_config), options))


def _config(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--agent-config is no JSON: {error}", click.get_current_context()) from error
    if not isinstance(config, dict):
        raise click.UsageError("--agent-config must be a JSON object", click.get_current_context())
    return config


async def _run(
    call: Invocation, settings: Settings, path: Path, message: str, config: dict[str, Any], options: dict[str, Any]
) -> int:
    from worker.cli.model_choice import with_model

    if options["script"] or options["no_llm"]:
        return await _ask(call, settings, path, message, config, options)
    async with with_model(settings, call.screen) as chosen:
        return await _ask(call, chosen, path, message, config, options)


async def _ask(
    call: Invocation, settings: Settings, path: Path, message: str, config: dict[str, Any], options: dict[str, Any]
) -> int:
    from queue_backends import Task
    from worker.agent_plugins.trial import AGENT, plugin_trial
    from worker.cli.follow import follow

    started_at = time.monotonic()
    async with plugin_trial(
        path,
        config=config,
        script=options["script"],
        tools=options["tools"],
        settings=settings,
        has_llm=not options["no_llm"],
    ) as trial:
        handle = await trial.fleet.submit(Task(prompt=message, agent=AGENT))
        result: TaskResult = await follow(trial.fleet, handle, call.screen, started_at=started_at, resumable=False)
    return OK if result.ok else FAILED
