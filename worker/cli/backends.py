"""`shoal backends`: which engines a queue can be on, and what each lacks."""

from __future__ import annotations

import click

from queue_backends.engines import Engine, engines
from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.screen import Screen


@click.command(
    help="List the engines that a queue can be on, whether each can be used here, and what it lacks. Opens none: what "
    "one server's own set-up makes of it, `shoal doctor` says.\n\n"
    + examples("shoal backends", "shoal backends --json | jq -r 'select(.missing == \"\").scheme'")
)
@shoal_options
def backends(call: Invocation) -> int:
    """A paragraph per engine, or one JSON document a line."""
    for engine in engines():
        if call.screen.as_json:
            call.screen.json(
                {
                    "scheme": engine.name,
                    "schemes": engine.schemes,
                    "missing": engine.missing,
                    "gaps": None if engine.gaps is None else dict(engine.gaps),
                    "gaps_of_partitions": dict(engine.gaps_of_partitions),
                }
            )
        else:
            _show(call.screen, engine)
    return OK


def _show(screen: Screen, engine: Engine) -> None:
    screen.line("  ".join(f"{scheme}://" for scheme in engine.schemes), "bold")
    if engine.missing:
        screen.line(f"  not usable here: {engine.missing}", "warn")
    if engine.gaps is None:
        return
    for capability, meaning in engine.gaps.items():
        screen.line(f"  lacks {capability.value}: {meaning}")
    if not engine.gaps:
        screen.line("  every guarantee", "good")
    for capability, meaning in engine.gaps_of_partitions.items():
        screen.line(f"  with several partitions, lacks {capability.value}: {meaning}")
