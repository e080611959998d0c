"""`shoal doctor`: what is wrong, and what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator

import click

from worker.cli.agent_checks import check_agents
from worker.cli.checks import check_providers, check_queue, check_settings, check_tools
from worker.cli.failures import FAILED, OK
from worker.cli.findings import Finding, Verdict, broken
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.screen import Screen, clean
from worker.errors import BadSetting

_MARKS = {Verdict.OK: ("✓", "good"), Verdict.WARNING: ("!", "warn"), Verdict.PROBLEM: ("✗", "bad")}


@click.command(
    help="Check settings, queue, providers, tools and agents, and say what to do.\n\n"
    + examples("shoal doctor", "shoal doctor --queue redis://localhost:6379", "shoal doctor --json")
)
@shoal_options
def doctor(call: Invocation) -> int:
    """Exit code 1 if something does not work."""
    return call.wait_for(_examine(call))


async def _examine(call: Invocation) -> int:
    worst = OK
    area = ""
    async for finding in _findings(call):
        if call.screen.as_json:
            call.screen.json(finding)
        else:
            _show(call.screen, finding, is_first=finding.area != area)
        area = finding.area
        if finding.verdict is Verdict.PROBLEM:
            worst = FAILED
    return worst


async def _findings(call: Invocation) -> AsyncIterator[Finding]:
    try:
        settings = call.settings()
        settings.require_ark()
    except BadSetting as error:
        yield broken("settings", "settings", str(error), "correct it (docs/configuration.md lists all settings)")
        return
    yield check_settings(settings)
    for check in (check_queue, check_providers, check_tools, check_agents):
        async for finding in check(settings):
            yield finding


def _show(screen: Screen, finding: Finding, *, is_first: bool) -> None:
    if is_first:
        screen.line(finding.area, "bold")
    mark, style = _MARKS[finding.verdict]
    screen.write(f"  {mark} ", style)
    screen.write(f"{finding.name:<14} ")
    screen.line(" ".join(clean(finding.detail).split()), "" if finding.verdict is Verdict.OK else style)
    if finding.advice:
        screen.line(f"      → {finding.advice}", "dim")
