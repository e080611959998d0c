"""`shoal graph`: a team, or a run of it, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, options_beside_a_file

if TYPE_CHECKING:
    from worker.teams.plan import Team
    from worker.teams.run_state import RunState

Format = Literal["text", "svg", "mermaid"]

_SUFFIXES: Final[dict[str, Format]] = {
    ".svg": "svg",
    ".mmd": "mermaid",
    ".mermaid": "mermaid",
    ".md": "mermaid",
    ".txt": "text",
}


@click.command(
    help="Draw the graph of a team: of a file, or of a team that the fleet has. With --run, how far a run of it is.\n\n"
    + examples(
        "shoal graph team.yaml",
        "shoal graph team.yaml --flow research -o team.svg",
        "shoal graph newsroom --format mermaid",
        "shoal graph --run newsroom-20261121-101500-a1b2c3",
    )
)
@click.argument("team", metavar="[FILE|TEAM]", required=False)
@click.option("--flow", "--team", "flow", default="", metavar="NAME", help="Which team of the file; else the first.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "svg", "mermaid"]),
    help="Else the one that -o's suffix says (.svg, .mmd, .md, .txt), or text.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
@click.option("--run", "run_id", default="", metavar="RUN", help="Draw this run, as it is now.")
@click.option(
    "--theme",
    type=click.Choice(["auto", "light", "dark"]),
    default="auto",
    show_default=True,
    help="Colours of an SVG; auto: as whoever looks at it likes.",
)
@click.option("--width", type=click.IntRange(20, 1000), help="Columns of a text; else those of the terminal.")
@options_beside_a_file
def graph(
    call: Invocation,
    team: str | None,
    flow: str,
    form: Format | None,
    output: Path | None,
    run_id: str,
    theme: Literal["auto", "light", "dark"],
    width: int | None,
) -> int:
    """Write the picture, or with --json its nodes and edges with their places."""
    if not team and not run_id:
        raise click.UsageError("name a team file, a team of the fleet, or a run with --run")
    found, state = _wanted(call, team or "", flow, run_id)
    if call.screen.as_json:
        from worker.teams.graph import layout

        call.screen.json(layout(found, state, now=_now()))
        return OK
    chosen = form or (_SUFFIXES.get(output.suffix.lower(), "text") if output else "text")
    fancy = call.screen.fancy and output is None
    text = _drawn(found, state, chosen, theme=theme, width=width or call.screen.size[0], colour=fancy)
    if output is None:
        call.screen.write(text if text.endswith("\n") else f"{text}\n")
        return OK
    output.write_text(_fenced(text) if chosen == "mermaid" and output.suffix == ".md" else text, encoding="utf-8")
    call.screen.note(f"wrote {output}")
    return OK


def _now() -> float:
    import time

    return time.time()


def _drawn(
    team: Team,
    state: RunState | None,
    form: Format,
    *,
    theme: Literal["auto", "light", "dark"],
    width: int,
    colour: bool,
) -> str:
    from worker.teams.graph import as_mermaid, as_svg, as_text, layout

    now = _now()
    if form == "mermaid":
        return as_mermaid(team, state, now=now)
    picture = layout(team, state, now=now)
    return as_svg(picture, theme) if form == "svg" else as_text(picture, width, colour) + "\n"


def _fenced(text: str) -> str:
    """As Markdown."""
    return f"```mermaid\n{text}```\n"


def _wanted(call: Invocation, team: str, flow: str, run_id: str) -> tuple[Team, RunState | None]:
    if run_id:
        return call.wait_for(_run(call, run_id))
    path = Path(team)
    if path.is_file() or path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        from worker.teams.bundle import read_bundle

        return read_bundle(path).plan(flow).team, None
    return call.wait_for(_stored(call, team, flow)), None


async def _run(call: Invocation, run_id: str) -> tuple[Team, RunState]:
    from worker.teams.runs import Runs

    async with call.fleet() as fleet:
        found = await Runs(fleet.backend.state).read(run_id)
    return found.plan.find(found.header.team), found.state


async def _stored(call: Invocation, slug: str, flow: str) -> Team:
    from worker.definitions import Definitions
    from worker.teams.errors import TeamNotFound

    async with call.fleet() as fleet:
        definitions = Definitions(fleet.backend.state)
        await definitions.load()
        for store in (definitions.teams, definitions.team_agents):
            if (stored := store.get(slug)) is not None:
                return stored.value.plan.find(flow or stored.value.plan.name)
        names = sorted(each.value.slug for each in definitions.teams.all())
    known = f"there are {', '.join(names)}" if names else "it has none yet: `shoal team apply FILE` stores one"
    raise TeamNotFound(f"{slug!r} is no file, and no team of the fleet: {known}")
