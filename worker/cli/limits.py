"""`shoal limits`: how fast models may be called, how much of that is used, and live changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.list_by_default import ListByDefault
from worker.cli.live_rules import LiveRules
from worker.cli.screen import Cell, Column
from worker.cli.wording import count, duration

if TYPE_CHECKING:
    from worker.rate_limits.report import AccountUse, KindUse
    from worker.rate_limits.rules import Limits

_RULES = LiveRules("limit", "limits.", "shoal limits")
_PARTS = ("key", "provider", "model", "route", "agent", "tenant", "team")
_KINDS = {
    "requests": "requests/min",
    "tokens": "tokens/min",
    "input_tokens": "input tokens/min",
    "output_tokens": "output tokens/min",
    "concurrent": "calls at once",
}
_ALMOST_FULL = 0.9


@click.group(cls=ListByDefault, help="Rate limits of the fleet: what is allowed, what is used, who waits.")
def limits() -> None:
    """The group; each command has its own options."""


@limits.command(
    "list",
    help="Show every limit, and for each account how much of it the fleet used in the last minute.\n\n"
    + examples("shoal limits", "shoal limits list --json"),
)
@shoal_options
def list_limits(call: Invocation) -> int:
    """One table, or one JSON document for each account."""
    return call.wait_for(_list(call))


@limits.command(
    "set",
    help="Make or change a limit, in all workers within a second.\n\n"
    + examples(
        "shoal limits set claude --where provider=anthropic --requests 4000 --input-tokens 2000000",
        "shoal limits set local --where key=openai@llm.example.com --concurrent 16",
        "shoal limits set fair --where route=main --tokens 500000 --per route --weight acme=3",
    ),
)
@click.argument("name")
@click.option("--requests", type=click.FloatRange(0, min_open=True), help="Model calls per minute.")
@click.option("--tokens", type=click.FloatRange(0, min_open=True), help="Tokens per minute, input and output.")
@click.option("--input-tokens", type=click.FloatRange(0, min_open=True), help="Input tokens per minute.")
@click.option("--output-tokens", type=click.FloatRange(0, min_open=True), help="Output tokens per minute.")
@click.option("--concurrent", type=click.IntRange(1), help="Calls under way at the same time.")
@click.option("--where", metavar="NAME=PATTERN", multiple=True, help="Only calls whose key, provider, model, … fits.")
@click.option("--per", type=click.Choice(_PARTS), multiple=True, help="What has an account of its own. [default: key]")
@click.option("--weight", metavar="TENANT=SHARE", multiple=True, help="A tenant's share; others have 1.")
@click.option("--burst", type=click.FloatRange(0, 60, min_open=True), help="What an idle limit gathers, in seconds.")
@click.option("--wait", type=click.FloatRange(0, 600), help="So long a call waits in its slot, in seconds.")
@click.option("--no-learn", is_flag=True, help="Do not go by what the vendor tells of its limits.")
@shoal_options
def set_limit(
    call: Invocation,
    name: str,
    requests: float | None,
    tokens: float | None,
    input_tokens: float | None,
    output_tokens: float | None,
    concurrent: int | None,
    where: tuple[str, ...],
    per: tuple[str, ...],
    weight: tuple[str, ...],
    burst: float | None,
    wait: float | None,
    no_learn: bool,
) -> int:
    """Exit code 2 if the limit cannot be."""
    given: dict[str, object] = {
        "requests_per_min": requests,
        "tokens_per_min": tokens,
        "input_tokens_per_min": input_tokens,
        "output_tokens_per_min": output_tokens,
        "concurrent": concurrent,
        "where": _pairs("--where", where) or None,
        "per": per or None,
        "weights": {tenant: float(share) for tenant, share in _pairs("--weight", weight, is_number=True).items()}
        or None,
        "burst_s": burst,
        "wait_s": wait,
        "learn": False if no_learn else None,
    }
    return call.wait_for(_RULES.put(call, name, {key: value for key, value in given.items() if value is not None}))


@limits.command(
    "unset",
    help="Take a live limit away; one of the same name in shoal.yaml counts again.\n\n"
    + examples("shoal limits unset claude"),
)
@click.argument("name")
@shoal_options
def unset_limit(call: Invocation, name: str) -> int:
    """Exit code 4 if there is no such live limit."""
    return call.wait_for(_RULES.drop(call, name))


def _pairs(option: str, given: tuple[str, ...], *, is_number: bool = False) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or (is_number and not value.replace(".", "", 1).isdecimal()):
            form = "TENANT=NUMBER, such as acme=3" if is_number else "NAME=PATTERN, such as provider=anthropic"
            raise click.UsageError(f"{option} {text!r}: write {form}")
        pairs[name] = value
    return pairs


async def _list(call: Invocation) -> int:
    from worker.live_settings import LiveSettings
    from worker.rate_limits.live import limits_in_force
    from worker.rate_limits.report import limit_uses

    settings = call.settings()
    async with call.fleet(settings) as fleet:
        live = LiveSettings(fleet.backend.state)
        await live.load()
        in_force = limits_in_force(settings.limits, live)
        uses = [use for use in await limit_uses(fleet.backend.state) if use.limit in in_force]
    if call.screen.as_json:
        for use in uses:
            call.screen.json(use)
        return OK
    columns = (
        Column("limit"),
        Column("account", wide=True),
        Column("kind", style="dim"),
        Column("used", right=True),
        Column("of", right=True, style="dim"),
        Column("share", right=True),
        Column("waiting", right=True),
        Column("refused", right=True),
        Column("state"),
    )
    rows = [row for use in uses for row in _rows(use)] + _unused(in_force, uses)
    call.screen.table(
        columns, rows, empty="no rate limits: set one with `shoal limits set`, or `limits:` in shoal.yaml"
    )
    return OK


def _rows(use: AccountUse) -> list[tuple[str | Cell, ...]]:
    rows: list[tuple[str | Cell, ...]] = []
    for position, kind in enumerate(use.uses or (None,)):
        first = position == 0
        rows.append(
            (
                use.limit if first else "",
                (use.account or "(all)") if first else "",
                *_kind(kind),
                (count(use.waiting) if use.waiting else "") if first else "",
                Cell(count(use.refused) if use.refused and first else "", "warn"),
                _state(use) if first else "",
            )
        )
    return rows


def _kind(use: KindUse | None) -> tuple[str | Cell, ...]:
    if use is None:
        return ("not known yet", "", "", "")
    share = use.used / use.limit if use.limit else 0.0
    style = "warn" if share >= _ALMOST_FULL else "good"
    return (_KINDS[use.kind], count(round(use.used)), count(round(use.limit)), Cell(f"{share:.0%}", style))


def _state(use: AccountUse) -> Cell:
    if use.closed_s > 0:
        return Cell(f"closed for {duration(use.closed_s)}", "bad")
    if use.pace < 0.995:
        return Cell(f"slowed to {use.pace:.0%}", "warn")
    return Cell("open", "good")


def _unused(in_force: Limits, uses: list[AccountUse]) -> list[tuple[str | Cell, ...]]:
    """Limits that no call has met in the last day."""
    known = {use.limit for use in uses}
    return [
        (name, Cell("(no calls yet)", "dim"), "", "", "", "", "", "", Cell("open", "good"))
        for name in in_force
        if name not in known
    ]
