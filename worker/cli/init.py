"""`shoal init`: a first project."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options


@click.command(
    "init",
    help="Make a folder with a team that runs at once, offline or with a model: quickstart.yaml, .env.example, "
    "docker-compose.yml.\n\n"
    + examples("shoal init my-team", "shoal run my-team/quickstart.yaml --provider mock --watch"),
)
@click.argument("project", type=click.Path(path_type=Path))
@shoal_options
def init(call: Invocation, project: Path) -> int:
    """Exit code 1 if the folder is there already."""
    from worker.teams.project import write_project

    files = write_project(project)
    if call.screen.as_json:
        call.screen.json({"folder": str(project), "files": [path.name for path in files]})
        return OK
    call.screen.line(f'Created project "{project}"')
    call.screen.line()
    call.screen.line("Next steps:")
    for line in (
        f"cd {shlex.quote(str(project))}",
        "shoal run quickstart.yaml --provider mock --watch",
        "cp .env.example .env    # and fill in ANTHROPIC_API_KEY",
        "shoal run quickstart.yaml --watch",
    ):
        call.screen.line(f"  {line}")
    return OK
