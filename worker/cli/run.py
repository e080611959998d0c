"""`shoal run`: one task, or a whole team, here and now."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.parameters import DURATION

_KIND = re.compile(r"""^(\ufeff)?(["']?)(kind|apiVersion)\2\s*:""", re.MULTILINE)
"""A key at a line's very beginning is one of the document itself."""
_OF_TASKS = ("route", "agent", "system")
_OF_TEAMS = ("watch", "inputs", "flow", "dry_run", "output", "no_mcp", "resume", "detach", "trace")
_FLAGS = {"inputs": "--input", "dry_run": "--dry-run", "no_mcp": "--no-mcp"}


@click.command(
    help="Run one task in this process and stream its answer, or run a team: a YAML or JSON file whose documents have "
    "a kind, such as ArkFlow, ArkTeam, SwarmTeam.\n\n"
    "PROMPT is the task's text, - for stdin, a task file (.yaml, .json) with a prompt, the agent's fields and tools; "
    "or the FILE of a team.\n\n"
    + examples(
        'shoal run "Write a haiku about the sea"',
        'shoal run "What time is it in Rome?" --model claude-sonnet-4-5 --tools tools.py',
        "git diff | shoal run - --system 'Review this change' > review.txt",
        "shoal run team.yaml --watch --input topic=whales",
        "shoal run team.yaml --provider mock --output json",
        "shoal run --resume research-20261121-1a2b3c",
    )
)
@click.argument("prompt", metavar="PROMPT|FILE|-", required=False)
@click.option("--model", help="The model; for a team, of all its roles.  [env: AGENT_MODEL]")
@click.option("--provider", help="The provider; default, or auto: found from the model.  [env: AGENT_PROVIDER]")
@click.option("--tools", multiple=True, metavar="REF", help="Python tools: a file or module:name. Repeatable.")
@click.option("--max-tokens", type=int, help="Output tokens of one model call; for a team, all of the run.")
@click.option("--timeout", "timeout_s", type=DURATION, help="Give up after this time.  [env: AGENT_TIMEOUT_SECONDS]")
@click.option("--route", metavar="NAME", help="Task: a route for its model calls.  [env: SHOAL_ROUTE]")
@click.option("--agent", metavar="NAME", help="Task: an agent that shoal.yaml declares.")
@click.option("--system", help="Task: the system prompt.  [env: AGENT_SYSTEM_PROMPT]")
@click.option("--watch", is_flag=True, help="Team: show what happens while it happens.")
@click.option("--trace", is_flag=True, help="Team: tell at the end what happened when, before the result.")
@click.option(
    "--input", "inputs", multiple=True, metavar="K=V", help="Team: its input; or a JSON object, or @file. Repeatable."
)
@click.option("--flow", "--team", "flow", metavar="NAME", help="Team: which one; without FILE, one that is stored.")
@click.option("--dry-run", is_flag=True, help="Team: check the file, and say what would run.")
@click.option("--output", metavar="FORMAT|FILE", help="Team: text, json, or a file for the output.")
@click.option("--no-mcp", is_flag=True, help="Team: connect no MCP servers.")
@click.option("--resume", metavar="RUN", help="Team: go on with a run that was interrupted.")
@click.option("--detach", is_flag=True, help="Team: with --queue, print the run's id and leave it to `shoal serve`.")
@shoal_options
def run(call: Invocation, prompt: str | None, **options: Any) -> int:
    """Exit code 1 if the task or the team failed."""
    if options["provider"] == "auto":
        options["provider"] = None
    if prompt is None and not options["resume"] and not options["flow"]:
        raise click.UsageError("give a prompt, a file, or --resume with a run's id", click.get_current_context())
    if prompt is None or is_team_file(prompt):
        _refuse(options, _OF_TASKS, "a team: its roles say it" if prompt is not None else "a team")
        from worker.cli.team_run import run_team

        return run_team(call, Path(prompt) if prompt is not None else None, options)
    from worker.cli.one_task import is_file_name, run_task

    if not is_file_name(prompt) or Path(prompt).is_file():  # else reading it says what is wrong
        _refuse(options, _OF_TEAMS, "one task: it needs the file of a team, whose documents have a kind")
    return run_task(call, prompt, options)


def is_team_file(prompt: str) -> bool:
    """Whether this names a file with documents of a kind. One that cannot be read is none: reading it as a task says
    why."""
    from worker.cli.one_task import is_file_name

    if not is_file_name(prompt):
        return False
    try:
        text = Path(prompt).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return _is_of_a_kind(text) if text.lstrip("\ufeff \t\r\n").startswith(("{", "[")) else bool(_KIND.search(text))


def _is_of_a_kind(text: str) -> bool:
    """Whether JSON is an object with a kind, or a list of such."""
    import msgspec

    try:
        value = msgspec.json.decode(text.lstrip("\ufeff"))
    except (msgspec.DecodeError, RecursionError):
        return False
    return any(isinstance(each, dict) and "kind" in each for each in (value if isinstance(value, list) else [value]))


def _refuse(options: dict[str, Any], names: tuple[str, ...], why: str) -> None:
    given = [_FLAGS.get(name, f"--{name}") for name in names if options[name]]
    if given:
        raise click.UsageError(f"{given[0]} means nothing for {why}", click.get_current_context())
