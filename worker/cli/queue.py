"""`shoal stats`, `shoal pause`, `shoal resume`: the queue as a whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

import click
from msgspec.structs import replace

from queue_backends import QueueStats
from queue_backends.registry import DEFAULT_URL
from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.screen import Cell
from worker.cli.wording import count, duration

if TYPE_CHECKING:
    from worker.settings import Settings

_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(/\d+)?")
"""ark's short form of a Redis URL. A queue's name that looks like this needs the URL."""


_queue_argument = click.argument("name", metavar="[QUEUE]", default="")
_WHICH = "QUEUE is a queue's name on the configured server, or a URL; default: the configured queue."


@click.command(
    help=f"Show how many tasks wait, run and failed. {_WHICH}\n\n"
    + examples("shoal stats", "shoal stats agents", "shoal stats --json")
)
@_queue_argument
@shoal_options
def stats(call: Invocation, name: str) -> int:
    """One table, or one JSON document."""
    return call.wait_for(_stats(call, name))


@click.command(
    help=f"Deliver no more of a queue's tasks, to any worker, until `shoal resume`. Running tasks go on. {_WHICH}\n\n"
    + examples("shoal pause", "shoal pause agents", "shoal pause 'redis://localhost:6379?stream=agents'")
)
@_queue_argument
@shoal_options
def pause(call: Invocation, name: str) -> int:
    """Pausing a paused queue changes nothing."""
    return call.wait_for(_set_paused(call, name, paused=True))


@click.command(
    help=f"Deliver a queue's tasks again after `shoal pause`. {_WHICH}\n\n"
    + examples("shoal resume", "shoal resume agents")
)
@_queue_argument
@shoal_options
def resume(call: Invocation, name: str) -> int:
    """Resuming a queue that is not paused changes nothing."""
    return call.wait_for(_set_paused(call, name, paused=False))


def queue_url(configured: str, name: str) -> str:
    """The URL of the queue that a command names: the configured one, one of this name on its server, or a URL."""
    if not name:
        return configured
    if "://" in name or _HOST_AND_PORT.fullmatch(name):
        return name
    server, _, query = (configured or DEFAULT_URL).partition("?")
    others = [(key, value) for key, value in parse_qsl(query) if key != "stream"]
    return f"{server}?{urlencode([*others, ('stream', name)], safe='{}:')}"


def _settings(call: Invocation, name: str) -> Settings:
    settings = call.settings()
    return replace(settings, queue_url=queue_url(settings.queue_url, name))


async def _stats(call: Invocation, name: str) -> int:
    async with call.fleet(_settings(call, name)) as fleet:
        found = await fleet.backend.queue.stats()
    if call.screen.as_json:
        call.screen.json(found)
    else:
        call.screen.fields(_figures(found))
    return OK


async def _set_paused(call: Invocation, name: str, *, paused: bool) -> int:
    async with call.fleet(_settings(call, name)) as fleet:
        queue = fleet.backend.queue
        await (queue.pause() if paused else queue.resume())
        found = await queue.stats()
    if call.screen.as_json:
        call.screen.json({"paused": found.paused})
    elif paused:
        call.screen.line(f"paused (ready: {count(found.ready)}; running, they go on: {count(found.running)})")
    else:
        call.screen.line(f"resumed (ready: {count(found.ready)}; running: {count(found.running)})")
    return OK


def _figures(found: QueueStats) -> list[tuple[str, str | Cell]]:
    by_priority = "  ".join(f"{priority.value} {count(n)}" for priority, n in found.ready_by_priority.items() if n)
    ready = count(found.ready) + (f"  ({by_priority})" if by_priority and found.ready else "")
    figures: list[tuple[str, str | Cell]] = [
        ("ready", ready),
        ("running", Cell(count(found.running), "tool" if found.running else "")),
        ("delayed", count(found.delayed)),
        ("dead", Cell(count(found.dead), "bad" if found.dead else "")),
    ]
    if found.oldest_ready_age_s is not None:
        figures.append(("oldest", f"has waited {duration(found.oldest_ready_age_s)}"))
    if found.paused:
        figures.append(("paused", Cell("yes: shoal resume", "warn")))
    return figures
