"""The command tree: which commands there are, and where each one lives. A command is imported when it runs."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NamedTuple

import click

from worker.build_info import build
from worker.cli.failures import report_failure
from worker.version import version

HELP = """Shoal runs LLM agent tasks: durable queue, tool use, live streams, token accounting.

\b
Examples:
  shoal run "Write a haiku about the sea"      one task, answered here
  shoal run team.yaml --watch                  a team of agents, step by step
  shoal worker                                 work on the queue until stopped
  shoal submit "Summarise …" --follow          hand a task to the workers, watch it
  shoal doctor                                 what is wrong, and what to do

Without --queue and TASK_QUEUE_URL, all commands share a server of your own on this machine.
"""

EPILOG = "Exit codes: 0 ok, 1 failed, 2 usage or settings, 3 queue unavailable, 4 not found, 130 interrupted."


class Entry(NamedTuple):
    """Where a command lives and what it does, known without importing it."""

    section: str
    module: str
    name: str
    help: str


COMMANDS: dict[str, Entry] = {
    "run": Entry("Work", "worker.cli.run", "run", "Run one task, or a team, and stream what it says."),
    "worker": Entry("Work", "worker.cli.worker", "worker", "Work on the queue until stopped."),
    "serve": Entry("Work", "worker.cli.serve", "serve", "Serve the HTTP API, its pages, and plugins, until stopped."),
    "submit": Entry("Tasks", "worker.cli.submit", "submit", "Hand tasks to the workers."),
    "tail": Entry("Tasks", "worker.cli.tail", "tail", "Watch a task's stream, live or afterwards."),
    "tasks": Entry("Tasks", "worker.cli.tasks", "tasks", "List, show and cancel tasks."),
    "dead": Entry("Tasks", "worker.cli.dead", "dead", "List, requeue and purge dead letters."),
    "agent": Entry("Agents", "worker.cli.agents", "agent", "Declare agents, live in the whole fleet."),
    "app": Entry("Agents", "worker.cli.agents", "app", "Declare apps: what their agents may use."),
    "llm": Entry("Agents", "worker.cli.agents", "llm", "Declare models that apps may use."),
    "group": Entry("Agents", "worker.cli.agents", "group", "Declare access groups of agents."),
    "datasource": Entry("Agents", "worker.cli.datasources", "datasource", "Fill and search texts that agents use."),
    "plugin": Entry("Agents", "worker.cli.plugin", "plugin", "Write, check, try and list agent plugins."),
    "init": Entry("Teams", "worker.cli.init", "init", "Make a first project: a team that runs at once."),
    "validate": Entry("Teams", "worker.cli.validate", "validate", "Check team files without running them."),
    "team": Entry("Teams", "worker.cli.team", "team", "Store teams, with their triggers, for the whole fleet."),
    "trigger": Entry("Teams", "worker.cli.trigger", "trigger", "Show, fire and suspend what starts teams by itself."),
    "notify": Entry("Teams", "worker.cli.notify", "notify", "Show and test who is told how runs ended."),
    "runs": Entry("Teams", "worker.cli.runs", "runs", "List, show, watch and cancel runs of teams."),
    "graph": Entry("Teams", "worker.cli.graph", "graph", "Draw a team, or a run of it: terminal, SVG, Mermaid."),
    "top": Entry("Operate", "worker.cli.top", "top", "Watch queue, workers, running tasks and cost, live."),
    "workers": Entry("Operate", "worker.cli.workers", "workers", "List the workers and what they do."),
    "drain": Entry("Operate", "worker.cli.drain", "drain", "Let workers finish what they have, and leave."),
    "stats": Entry("Operate", "worker.cli.queue", "stats", "Show the queue's figures."),
    "pause": Entry("Operate", "worker.cli.queue", "pause", "Deliver no more of a queue's tasks to any worker."),
    "resume": Entry("Operate", "worker.cli.queue", "resume", "Deliver them again."),
    "capacity": Entry("Operate", "worker.cli.capacity", "capacity", "Calculate what a number of tasks needs."),
    "usage": Entry("Operate", "worker.cli.usage", "usage", "Show what was spent: tokens and cost."),
    "budgets": Entry("Operate", "worker.cli.budgets", "budgets", "Show and set what may be spent."),
    "limits": Entry("Operate", "worker.cli.limits", "limits", "Show and set how fast models may be called."),
    "key": Entry("Operate", "worker.cli.key", "key", "Create and revoke API keys of the gateway."),
    "serve-swarm": Entry("Operate", "worker.cli.serve_swarm", "serve_swarm", "Serve kubeswarm's plugin protocol."),
    "provider": Entry("Operate", "worker.cli.provider", "provider", "List, check, configure and try providers."),
    "routes": Entry("Operate", "worker.cli.routes", "routes", "Show and set where model calls may go."),
    "settings": Entry("Operate", "worker.cli.settings", "settings", "Show and change the fleet's live settings."),
    "approve": Entry("Operate", "worker.cli.approve", "approve", "Answer questions that runs put to people."),
    "approval": Entry("Operate", "worker.cli.approval", "approval", "The same: list, approve, reject."),
    "backends": Entry("Operate", "worker.cli.backends", "backends", "List the engines that a queue can be on."),
    "doctor": Entry("Operate", "worker.cli.doctor", "doctor", "Check queue, providers, tools and agents."),
}


class LazyCommands(click.Group):
    """A group whose help comes from the table, so that it imports no command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command, if there is one of that name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry.module), entry.name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.module}.{entry.name} is no command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}"
            raise click.UsageError(f"no such command {args[0]!r}: {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section."""
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl(
                    [(name, entry.help) for name, entry in COMMANDS.items() if entry.section == section], col_max=12
                )


def _print_version(ctx: click.Context, _option: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"shoal {version()} ({build()})")
        ctx.exit()


@click.command(
    cls=LazyCommands,
    help=HELP,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show it.")
def app() -> None:
    """The root of all commands."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Writes errors as one line on stderr."""
    try:
        code = app.main(args=list(arguments), prog_name="shoal", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the outermost frame: every error becomes a line
        return report_failure(error, debug="--debug" in arguments)
    return code if isinstance(code, int) else 0
