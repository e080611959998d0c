"""`shoal budgets`: what may be spent, what is, and live changes of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from worker.cli.failures import NOT_FOUND, OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.live_rules import LiveRules
from worker.cli.screen import Cell, Column
from worker.cli.wording import count, moment

if TYPE_CHECKING:
    from queue_backends import StateStore
    from worker.budgets.rebuilding import Rebuilt
    from worker.budgets.report import BudgetUse
    from worker.budgets.rules import BudgetRule, Rules
    from worker.settings import Settings

_RULES = LiveRules("budget", "budgets.", "shoal budgets list")
_BAR_CELLS = 12
_SCOPES = ("task", "session", "agent", "team", "tenant", "key", "fleet")
_PERIODS = ("day", "month", "ever")


@click.group(help="Budgets of tokens and money: what may be spent, and what is.")
def budgets() -> None:
    """The group; each command has its own options."""


@budgets.command(
    "list",
    help="Show every budget and how much of it each account has used, the fullest first.\n\n"
    + examples("shoal budgets list", "shoal budgets list one-task --limit 5", "shoal budgets list --json"),
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many accounts each."
)
@shoal_options
def list_budgets(call: Invocation, names: tuple[str, ...], limit: int) -> int:
    """One table, or one JSON document for each account. Exit code 4 if there is no such budget."""
    return call.wait_for(_list(call, names, limit))


@budgets.command(
    "set",
    help="Make or change a budget, in all workers within a second.\n\n"
    + examples(
        "shoal budgets set acme --scope tenant --match acme --period month --usd 100",
        "shoal budgets set one-task --scope task --tokens 200000",
        "shoal budgets set all --scope fleet --period day --usd 500 --soft 0.9",
    ),
)
@click.argument("name")
@click.option("--scope", type=click.Choice(_SCOPES), required=True, help="Whose spending is added up.")
@click.option("--period", type=click.Choice(_PERIODS), default="ever", show_default=True, help="Over which time.")
@click.option("--tokens", type=click.IntRange(1), help="At most so many tokens, input and output.")
@click.option("--usd", type=click.FloatRange(0, min_open=True), help="At most so many US dollars.")
@click.option("--soft", type=click.FloatRange(0, 1, min_open=True), help="Warn from this share on.  [default: 0.8]")
@click.option("--warn-only", is_flag=True, help="Refuse nothing; only warn.")
@click.option("--match", metavar="PATTERN", help="Only accounts whose name fits, such as a tenant's.")
@click.option("--where", metavar="NAME=PATTERN", multiple=True, help="Only calls whose agent, model, … fits.")
@shoal_options
def set_budget(
    call: Invocation,
    name: str,
    scope: str,
    period: str,
    tokens: int | None,
    usd: float | None,
    soft: float | None,
    warn_only: bool,
    match: str | None,
    where: tuple[str, ...],
) -> int:
    """Exit code 2 if the budget cannot be."""
    rule: dict[str, object] = {"scope": scope, "period": period}
    given = {"tokens": tokens, "usd": usd, "soft": soft, "match": match, "where": _patterns(where)}
    rule |= {key: value for key, value in given.items() if value not in (None, {})}
    if warn_only:
        rule["hard"] = False
    return call.wait_for(_RULES.put(call, name, rule))


@budgets.command(
    "unset",
    help="Take a live budget away; one of the same name in shoal.yaml counts again.\n\n"
    + examples("shoal budgets unset acme"),
)
@click.argument("name")
@shoal_options
def unset_budget(call: Invocation, name: str) -> int:
    """Exit code 4 if there is no such live budget."""
    return call.wait_for(_RULES.drop(call, name))


@budgets.command(
    "rebuild",
    help="Add up what was spent again, from the usage log, while work goes on.\n\n"
    + examples("shoal budgets rebuild", "shoal budgets rebuild acme --json"),
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--force",
    is_flag=True,
    help="Also accounts that the records do not have all of: what they do not say is forgotten.",
)
@shoal_options
def rebuild_budgets(call: Invocation, names: tuple[str, ...], force: bool) -> int:
    """One line, or one JSON document, for each account. Exit code 4 if there is no such budget."""
    return call.wait_for(_rebuild(call, names, by_force=force))


def _patterns(given: tuple[str, ...]) -> dict[str, str]:
    patterns = {}
    for text in given:
        kind, equals, pattern = text.partition("=")
        if not equals:
            raise click.UsageError(f"--where {text!r}: write NAME=PATTERN, such as model=gpt-*")
        patterns[kind] = pattern
    return patterns


async def _list(call: Invocation, names: tuple[str, ...], limit: int) -> int:
    from worker.budgets.report import budget_uses

    settings = call.settings()
    async with call.fleet(settings) as fleet:
        rules = await _rules(call, settings, fleet.backend.state, names)
        if rules is None:
            return NOT_FOUND
        found = await budget_uses(fleet.backend.state, rules)
    uses = [use for rule in rules for use in [use for use in found if use.budget == rule][:limit]]
    if call.screen.as_json:
        for use in uses:
            call.screen.json(use)
        return OK
    columns = (
        Column("budget"),
        Column("scope"),
        Column("account", wide=True),
        Column("period"),
        Column("used", right=True),
        Column("of", right=True, style="dim"),
        Column("under way", right=True, style="dim"),
        Column("", style="dim"),
        Column("share", right=True),
        Column("room again", style="dim"),
    )
    rows = [row for use in uses for row in _rows(use)] + _unused(rules, uses)
    call.screen.table(columns, rows, empty="no budgets: set one with `shoal budgets set`, or `budgets:` in shoal.yaml")
    if len(found) > len(uses):
        call.screen.note(f"{count(len(uses))} of {count(len(found))} accounts are shown (--limit)")
    return OK


async def _rules(call: Invocation, settings: Settings, state: StateStore, names: tuple[str, ...]) -> Rules | None:
    """The budgets of these names, all without any; None, and said, if there is no such budget."""
    from worker.budgets.live import rules_in_force
    from worker.definitions import Definitions
    from worker.live_settings import LiveSettings

    live = LiveSettings(state)
    await live.load()
    definitions = Definitions(state)
    await definitions.agents.load()
    rules = rules_in_force(settings.budgets, live, definitions)
    if unknown := [name for name in names if name not in rules]:
        call.screen.note(f"no budget {unknown[0]!r} (see: shoal budgets list)", "bad")
        return None
    return {name: rule for name, rule in rules.items() if not names or name in names}


async def _rebuild(call: Invocation, names: tuple[str, ...], *, by_force: bool) -> int:
    from worker.budgets.rebuilding import rebuild

    settings = call.settings()
    async with call.fleet(settings) as fleet:
        rules = await _rules(call, settings, fleet.backend.state, names)
        if rules is None:
            return NOT_FOUND
        keep_s = settings.usage_retention_days * 86_400.0
        found = await rebuild(fleet.backend.state, rules, keep_s=keep_s, by_force=by_force)
    if call.screen.as_json:
        for each in found:
            call.screen.json(each)
        return OK
    columns = (
        Column("budget"),
        Column("scope"),
        Column("account", wide=True),
        Column("period"),
        Column("was", right=True, style="dim"),
        Column("is", right=True),
        Column(""),
    )
    rows = [row for each in found for row in _rebuilt_rows(rules[each.budget], each)]
    call.screen.table(columns, rows, empty="no account of these budgets has been charged yet")
    if any(each.is_kept for each in found):
        call.screen.note("kept: the records do not have all of it, and would have it too low (--force)", "warn")
    return OK


def _rebuilt_rows(rule: BudgetRule, each: Rebuilt) -> list[tuple[str | Cell, ...]]:
    amounts = []
    if rule.usd is not None:
        amounts.append((_usd(each.usd_before), _usd(each.usd_after)))
    if rule.tokens is not None:
        amounts.append((count(each.tokens_before), count(each.tokens_after)))
    said = Cell("kept", "warn") if each.is_kept else "was missing" if each.was_missing else ""
    return [(each.budget, each.scope, each.account, each.period, was, now, said) for was, now in amounts]


def _rows(use: BudgetUse) -> list[tuple[str | Cell, ...]]:
    style = "bad" if use.share >= 1 and use.hard else "warn" if use.share >= use.soft else "good"
    amounts = []
    if use.usd_limit is not None:
        amounts.append((_usd(use.usd_used), _usd(use.usd_limit), _usd(use.usd_held) if use.usd_held else ""))
    if use.tokens_limit is not None:
        held = count(use.tokens_held) if use.tokens_held else ""
        amounts.append((count(use.tokens_used), count(use.tokens_limit), held))
    again = moment(use.renews_at) if use.renews_at else ""
    return [
        (
            use.budget,
            use.scope,
            use.account,
            use.period,
            *amount,
            Cell(_bar(use.share), style),
            Cell(f"{use.share:.0%}", style),
            again,
        )
        for amount in amounts
    ]


def _unused(rules: Rules, uses: list[BudgetUse]) -> list[tuple[str | Cell, ...]]:
    """Budgets that nothing was charged to yet."""
    known = {use.budget for use in uses}
    found: list[tuple[str | Cell, ...]] = []
    for rule in rules.values():
        if rule.name not in known:
            limit = _usd(rule.usd) if rule.usd is not None else count(rule.tokens or 0)
            account = Cell(rule.match if rule.match != "*" else "", "dim")
            found.append((rule.name, rule.scope.value, account, rule.period.value, "0", limit, "", "", "0%", ""))
    return found


def _usd(amount: float) -> str:
    return f"${amount:,.2f}"


def _bar(share: float) -> str:
    full = min(round(share * _BAR_CELLS), _BAR_CELLS)
    return "█" * full + "░" * (_BAR_CELLS - full)
