"""`shoal usage`: what was spent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from queue_backends import CallOutcome, UsageRecord
from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.screen import Cell, Column
from worker.cli.wording import count, duration, moment, usd

if TYPE_CHECKING:
    from worker.usage import UsageReport, UsageTotals

_OUTCOME_STYLES = {CallOutcome.FAILED: "bad", CallOutcome.CUT: "warn", CallOutcome.CANCELLED: "dim"}


@click.command(
    help="Show tokens and cost of all model calls, cut and cancelled ones included.\n\n"
    + examples("shoal usage", "shoal usage --by model", "shoal usage --records --limit 20", "shoal usage --json")
)
@click.option(
    "--by",
    type=click.Choice(["day", "agent", "model", "tenant"]),
    default="day",
    show_default=True,
    help="One line for each of these.",
)
@click.option("--records", is_flag=True, help="The single model calls, newest first.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many lines.")
@shoal_options
def usage(call: Invocation, by: str, records: bool, limit: int) -> int:
    """One table, or one JSON document a line."""
    return call.wait_for(_records(call, limit) if records else _totals(call, by, limit))


async def _totals(call: Invocation, by: str, limit: int) -> int:
    from worker.usage import UsageReport

    async with call.fleet() as fleet:
        found = await _by(UsageReport(fleet.backend.state), by, limit)
    if call.screen.as_json:
        for totals in found:
            call.screen.json(totals)
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
    call.screen.table(columns, [_totals_row(totals) for totals in found], empty="nothing was used yet")
    if unpriced := sum(totals.unpriced_calls for totals in found):
        call.screen.note(f"+ {count(unpriced)} calls whose price is not known (setting: prices)")
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


async def _records(call: Invocation, limit: int) -> int:
    from worker.usage import UsageReport

    async with call.fleet() as fleet:
        found = await UsageReport(fleet.backend.state).recent(limit=limit)
    if call.screen.as_json:
        for record in found:
            call.screen.json(record)
        return OK
    columns = (
        Column("started"),
        Column("task"),
        Column("turn", right=True),
        Column("agent"),
        Column("model", wide=True),
        Column("in", right=True),
        Column("out", right=True),
        Column("cost", right=True),
        Column("took", right=True),
        Column("outcome"),
    )
    call.screen.table(columns, [_record_row(record) for record in found], empty="nothing was used yet")
    return OK


def _totals_row(totals: UsageTotals) -> tuple[str, ...]:
    is_unknown = totals.unpriced_calls == totals.calls
    return (
        totals.name,
        count(totals.calls),
        count(totals.input_tokens),
        count(totals.cache_read_tokens),
        count(totals.output_tokens),
        count(totals.reasoning_tokens),
        "?" if is_unknown else usd(totals.cost_usd),
    )


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
