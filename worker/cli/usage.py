"""`shoal usage`: what was spent, in tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from queue_backends import CallOutcome, UsageRecord
from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.screen import Cell, Column
from worker.cli.usage_carrying import export_records, stream_records
from worker.cli.usage_plot import bars
from worker.cli.usage_span import span_options
from worker.cli.wording import count, duration, moment, usd
from worker.known_cost import known_cost_usd

if TYPE_CHECKING:
    from worker.ledger.grouping import Group
    from worker.ledger.reading import Span
    from worker.usage import UsageReport, UsageTotals

_OUTCOME_STYLES = {CallOutcome.FAILED: "bad", CallOutcome.CUT: "warn", CallOutcome.CANCELLED: "dim"}
_ROOM_FOR_ALL = 100
_TOTALS = ("day", "agent", "model", "tenant")
"""These are kept as totals; everything else is added up from the records."""
_FIELDS = (
    *("hour", "day", "month", "agent", "model", "provider"),
    *("tenant", "session", "team", "role", "task", "outcome"),
)


@click.group(
    invoke_without_command=True,
    subcommand_metavar="[export | stream]",
    help="Show tokens and cost of all model calls, cut and cancelled ones included.\n\n"
    + examples(
        "shoal usage",
        "shoal usage --by model --since 7d",
        "shoal usage --by day,agent --where tenant=acme --plot",
        "shoal usage --records --limit 20",
        "shoal usage export --since 2026-11-01 --output november.parquet",
    ),
)
@click.option(
    "--by", default="day", show_default=True, metavar="FIELD[,FIELD]", help=f"Group by these: {', '.join(_FIELDS)}."
)
@span_options
@click.option("--plot", is_flag=True, help="Draw the cost of each group as a bar; tokens where no cost is known.")
@click.option("--records", is_flag=True, help="The single model calls, newest first.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many lines.")
@shoal_options
def usage(
    call: Invocation,
    by: str,
    span: Span,
    plot: bool,
    records: bool,
    limit: int,
) -> int:
    """One table, or one JSON document a line."""
    if click.get_current_context().invoked_subcommand:
        return OK
    fields = _fields(by)
    if records:
        return call.wait_for(_records(call, span, limit))
    if span.is_everything and len(fields) == 1 and fields[0] in _TOTALS:
        return call.wait_for(_totals(call, fields[0], limit, plot=plot))
    return call.wait_for(_groups(call, span, fields, limit, plot=plot))


def _fields(by: str) -> list[str]:
    fields = [name.strip() for name in by.split(",") if name.strip()]
    if not fields or (unknown := [name for name in fields if name not in _FIELDS]):
        raise click.UsageError(
            f"--by {by!r}: {', '.join(unknown) if fields else 'nothing'} is none of {', '.join(_FIELDS)}"
        )
    return fields


async def _totals(call: Invocation, by: str, limit: int, *, plot: bool) -> int:
    from worker.usage import UsageReport

    async with call.fleet() as fleet:
        found = await _by(UsageReport(fleet.backend.state), by, limit)
    if call.screen.as_json:
        for totals in found:
            call.screen.json(totals)
        return OK
    if plot:
        shown = found[::-1] if by == "day" else sorted(found, key=lambda totals: -totals.cost_usd)
        _plot(call, [(totals.name, totals.cost_usd, totals.input_tokens + totals.output_tokens) for totals in shown])
        return OK
    columns = (
        Column(by),
        Column("calls", right=True),
        Column("in", right=True),
        Column("cached", right=True, style="dim"),
        Column("out", right=True),
        Column("reasoning", right=True, style="dim"),
        Column("cost", right=True, style="bold"),
    )
    call.screen.table(columns, [(totals.name, *_figures(totals)) for totals in found], empty="nothing was used yet")
    _note_unpriced(call, sum(totals.unpriced_calls for totals in found))
    return OK


async def _by(report: UsageReport, by: str, limit: int) -> list[UsageTotals]:
    match by:
        case "agent":
            return await report.by_agent(limit=limit)
        case "model":
            return await report.by_model(limit=limit)
        case "tenant":
            return await report.by_tenant(limit=limit)
        case _:
            return await report.by_day(limit=limit)


async def _groups(call: Invocation, span: Span, fields: Sequence[str], limit: int, *, plot: bool) -> int:
    from worker.ledger.grouping import TIMES, grouped
    from worker.ledger.reading import usage_records

    async with call.fleet() as fleet:
        found = await grouped(usage_records(fleet.backend.state, span), fields)
    shown = found[-limit:] if fields[0] in TIMES else found[:limit]
    if call.screen.as_json:
        for group in shown:
            call.screen.json({**dict(zip(fields, group.key, strict=True)), **_plain(group)})
        return OK
    if plot:
        rows = [(" · ".join(group.key), group.cost_usd, group.input_tokens + group.output_tokens) for group in shown]
        _plot(call, rows)
        return OK
    columns = (
        *(Column(name, wide=True) for name in fields),
        Column("calls", right=True),
        Column("failed", right=True, style="bad"),
        Column("in", right=True),
        Column("cached", right=True, style="dim"),
        Column("out", right=True),
        Column("reasoning", right=True, style="dim"),
        Column("time", right=True, style="dim"),
        Column("cost", right=True, style="bold"),
    )
    _table(call, columns, [_group_row(group) for group in shown], empty="nothing was used in that time")
    if len(found) > len(shown):
        call.screen.note(f"{len(shown)} of {len(found)} groups are shown (--limit)")
    _note_unpriced(call, sum(group.unpriced_calls for group in found))
    return OK


def _table(call: Invocation, columns: Sequence[Column], rows: Sequence[Sequence[str | Cell]], *, empty: str) -> None:
    """A narrow terminal gets the main columns alone: better than numbers that are cut."""
    kept = list(range(len(columns)))
    if call.screen.fancy and call.screen.size[0] < _ROOM_FOR_ALL:
        kept = [index for index in kept if columns[index].style != "dim"]
    call.screen.table([columns[index] for index in kept], [[row[index] for index in kept] for row in rows], empty=empty)


def _plot(call: Invocation, rows: Sequence[tuple[str, float, int]]) -> None:
    if not rows:
        call.screen.note("nothing was used in that time")
        return
    has_costs = any(cost for _, cost, _ in rows)
    values = [(name, cost if has_costs else float(tokens)) for name, cost, tokens in rows]
    labels = [usd(cost) if has_costs else count(tokens) for _, cost, tokens in rows]
    call.screen.note("cost in US dollars" if has_costs else "tokens: no cost is known")
    for line in bars(values, labels, width=call.screen.size[0]):
        call.screen.write(f"{line.name}  ")
        call.screen.write(line.bar, "tool")
        call.screen.line(f" {line.label}")


def _plain(group: Group) -> dict[str, object]:
    return {name: getattr(group, name) for name in group.__struct_fields__ if name != "key"}


def _figures(totals: UsageTotals | Group) -> tuple[str, ...]:
    return (count(totals.calls), *_tokens(totals), _cost(totals))


def _tokens(totals: UsageTotals | Group) -> tuple[str, ...]:
    return (
        count(totals.input_tokens),
        count(totals.cache_read_tokens),
        count(totals.output_tokens),
        count(totals.reasoning_tokens),
    )


def _cost(totals: UsageTotals | Group) -> str:
    return usd(known_cost_usd(totals))


def _group_row(group: Group) -> tuple[str | Cell, ...]:
    names = tuple(name or "-" for name in group.key)
    failed = count(group.failed) if group.failed else ""
    return (*names, count(group.calls), failed, *_tokens(group), duration(group.duration_s), _cost(group))


def _note_unpriced(call: Invocation, calls: int) -> None:
    if calls:
        call.screen.note(
            f"+ {count(calls)} {'call' if calls == 1 else 'calls'} whose price is not known (setting: prices)"
        )


async def _records(call: Invocation, span: Span, limit: int) -> int:
    async with call.fleet() as fleet:
        if span.is_everything:
            from worker.usage import UsageReport

            found = await UsageReport(fleet.backend.state).recent(limit=limit)
        else:
            from collections import deque

            from worker.ledger.reading import usage_records

            kept: deque[UsageRecord] = deque(maxlen=limit)
            async for record in usage_records(fleet.backend.state, span):
                kept.append(record)
            found = list(kept)[::-1]
    if call.screen.as_json:
        for record in found:
            call.screen.json(record)
        return OK
    columns = (
        Column("started"),
        Column("task", wide=True),
        Column("turn", right=True, style="dim"),
        Column("agent", style="dim"),
        Column("model", wide=True),
        Column("in", right=True),
        Column("out", right=True),
        Column("cost", right=True),
        Column("took", right=True, style="dim"),
        Column("outcome"),
    )
    _table(call, columns, [_record_row(record) for record in found], empty="nothing was used yet")
    return OK


def _record_row(record: UsageRecord) -> tuple[str | Cell, ...]:
    approximately = "~" if record.estimated else ""
    return (
        moment(record.started_at),
        record.task_id,
        record.id.removeprefix(f"{record.task_id}:"),
        record.agent,
        f"{record.provider}/{record.model}",
        approximately + count(record.usage.input_tokens),
        approximately + count(record.usage.output_tokens),
        usd(record.cost_usd),
        duration(record.duration_ms / 1000),
        Cell(record.outcome.value, _OUTCOME_STYLES.get(record.outcome, "good")),
    )


usage.add_command(export_records)
usage.add_command(stream_records)
