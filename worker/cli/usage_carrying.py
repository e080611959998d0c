"""`shoal usage export` and `shoal usage stream`: usage records carried elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, options_beside_a_file, shoal_options
from worker.cli.parameters import DURATION
from worker.cli.usage_span import span_options
from worker.cli.wording import count

if TYPE_CHECKING:
    from worker.ledger.reading import Span


@click.command(
    "export",
    help="Write all records of a span into a file, or to standard output.\n\n"
    + examples(
        "shoal usage export --output usage.csv",
        "shoal usage export --since 30d --format jsonl | jq .cost_usd",
        "shoal usage export --where tenant=acme --output acme.parquet",
    ),
)
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="The file.  [default: stdout]")
@click.option("--format", "kind", type=click.Choice(["csv", "jsonl", "parquet"]), help="[default: by the file's name]")
@span_options
@options_beside_a_file
def export_records(
    call: Invocation,
    output: Path | None,
    kind: str | None,
    span: Span,
) -> int:
    """Exit code 2 if the file cannot be written."""
    if output == Path("-"):
        output = None
    if kind == "parquet" and output is None and sys.stdout.isatty():
        raise click.UsageError("Parquet is not for a terminal: give --output FILE")
    return call.wait_for(_export(call, output, kind, span))


@click.command(
    "stream",
    help="Carry every record, once, to a place of yours, until stopped. TO is file:///path.jsonl, "
    "postgresql://…?table=NAME or redis://…?stream=NAME. It goes on where it was after any restart.\n\n"
    + examples(
        "shoal usage stream file:///var/log/shoal/usage.jsonl",
        "shoal usage stream 'postgresql://billing@db/billing?table=llm_usage'",
        "shoal usage stream 'redis://localhost:6379?stream=usage&maxlen=1000000' --once",
    ),
)
@click.argument("to")
@click.option("--once", is_flag=True, help="Stop as soon as everything has been carried over.")
@click.option("--every", type=DURATION, default=1.0, show_default="1s", help="How often to look for new records.")
@shoal_options
def stream_records(call: Invocation, to: str, once: bool, every: float) -> int:
    """Ctrl-C and SIGTERM stop it."""
    work = _stream(call, to, once=once, every_s=max(every, 0.05))
    return call.wait_for(work, log_level="warning")  # what it waits for is worth a line


async def _export(call: Invocation, output: Path | None, kind: str | None, span: Span) -> int:
    from worker.ledger.export import export, format_of
    from worker.ledger.reading import usage_records

    async with call.fleet() as fleet:
        written = await export(usage_records(fleet.backend.state, span), output, kind or format_of(output))
    call.screen.note(f"{count(written)} {'record' if written == 1 else 'records'} to {output or 'standard output'}")
    return OK


async def _stream(call: Invocation, to: str, *, once: bool, every_s: float) -> int:
    import functools

    from worker.cli.stopping import until_told_to_stop
    from worker.ledger.sinks.sink import open_sink
    from worker.ledger.streaming import UsageStream
    from worker.settings.masking import masked_url

    settings = call.settings()
    async with call.fleet(settings) as fleet:
        stream = UsageStream(
            fleet.backend.state,
            functools.partial(open_sink, to),
            every_s=every_s,
            kept_s=settings.usage_retention_days * 86_400.0,
        )
        if not once:
            call.screen.note(f"streaming usage to {masked_url(to)}; Ctrl-C stops it")
        await until_told_to_stop(stream.run(until_caught_up=once))
    call.screen.note(f"{count(stream.sent)} {'record' if stream.sent == 1 else 'records'} carried over")
    return OK
