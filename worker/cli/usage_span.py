"""Which usage records a command is about, as flags say it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from worker.cli.parameters import PAIR
from worker.cli.past_time import PAST

_WHERE = ("agent", "model", "provider", "tenant", "session_id", "team", "role", "task_id", "outcome")


def span_options(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give a command the flags `--since`, `--until` and `--where`, and what they mean as its argument `span`."""

    @click.option("--since", type=PAST, metavar="TIME", help="From then on: 7d, 12h, 2026-11-01, or a whole time.")
    @click.option("--until", type=PAST, metavar="TIME", help="Before then.")
    @click.option(
        "--where",
        type=PAIR,
        multiple=True,
        metavar="FIELD=PATTERN",
        help=f"Only records that fit, such as model=gpt-*; fields: {', '.join(_WHERE)}.",
    )
    @functools.wraps(function)
    def command(
        *arguments: Any,
        since: float | None,
        until: float | None,
        where: tuple[tuple[str, str], ...],
        **options: Any,
    ) -> int | None:
        from worker.ledger.reading import Span  # imports the ledger

        for field, _ in where:
            if field not in _WHERE:
                raise click.UsageError(f"--where {field}=…: fields are {', '.join(_WHERE)}")
        return function(*arguments, span=Span(since=since, until=until, where=dict(where)), **options)

    return command
