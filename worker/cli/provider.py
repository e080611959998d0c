"""`shoal provider`: the providers that a fleet can use, whether they work, and their settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click
import msgspec

from worker.cli.failures import FAILED, OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.live_values import live_settings
from worker.cli.provider_config import provider_config, set_provider_config
from worker.cli.provider_serve import serve_provider
from worker.cli.provider_trial import try_provider
from worker.cli.screen import Cell, Column

if TYPE_CHECKING:
    from worker.provider_directory import HealthReport, ProviderDirectory, ProviderEntry

_HEALTHY, _UNHEALTHY = Cell("healthy", "good"), Cell("unhealthy", "bad")


@click.group(help="Providers: which there are, whether they work, and their settings.")
def provider() -> None:
    """The group; each command has its own options."""


provider.add_command(provider_config)
provider.add_command(set_provider_config)
provider.add_command(serve_provider)
provider.add_command(try_provider)


@provider.command(
    "list",
    help="List all providers with what a check of each finds; all are asked at once, which takes five seconds at "
    "most.\n\n" + examples("shoal provider list", "shoal provider list --no-check", "shoal provider list --json"),
)
@click.option("--check/--no-check", default=True, help="Ask each of them whether it works.  [default: check]")
@shoal_options
def list_providers(call: Invocation, check: bool) -> int:
    """One table, or one JSON document a line."""
    return call.wait_for(_list(call, check))


@provider.command(
    "show",
    help="Show one provider: where it comes from, what it can do, who uses it, and whether it works.\n\n"
    + examples("shoal provider show anthropic"),
)
@click.argument("name")
@shoal_options
def show_provider(call: Invocation, name: str) -> int:
    """One provider's facts, or one JSON document."""
    return call.wait_for(_show(call, name))


provider.add_command(show_provider, "get")  # the name that other fleets' command lines have for it


@provider.command(
    "health",
    help="Ask a provider whether it works, with a real but light call of five seconds at most.\n\n"
    + examples("shoal provider health anthropic"),
)
@click.argument("name")
@shoal_options
def provider_health(call: Invocation, name: str) -> int:
    """Exit code 1 if it does not."""
    return call.wait_for(_health(call, name))


@asynccontextmanager
async def directory(call: Invocation) -> AsyncIterator[ProviderDirectory]:
    """What is known of providers, with this process' settings and the fleet's."""
    from worker.provider_directory import ProviderDirectory

    settings = call.settings()
    async with live_settings(call) as (live, state), ProviderDirectory.opened(settings, live, state) as known:
        yield known


async def _list(call: Invocation, check: bool) -> int:
    async with directory(call) as known:
        names = await known.names()
        entries = [await known.entry(name) for name in names]
        reports = list(await asyncio.gather(*(known.health(name) for name in names))) if check else []
    health = {report.name: report for report in reports}
    if call.screen.as_json:
        for entry in entries:
            call.screen.json(_plain(entry, health.get(entry.name)))
        return OK
    columns = (
        Column("name"),
        Column("version"),
        Column("permission"),
        Column("status"),
        Column("kind", style="dim"),
        Column("default", style="bold"),
        Column("note", wide=True, style="dim"),
    )
    call.screen.table(columns, [_row(entry, health.get(entry.name)) for entry in entries], empty="no providers")
    return OK


async def _show(call: Invocation, name: str) -> int:
    async with directory(call) as known:
        entry = await known.entry(name)
        report = await known.health(name)
    if call.screen.as_json:
        call.screen.json(_plain(entry, report))
        return OK
    fields: list[tuple[str, str | Cell]] = [
        ("name", entry.name),
        ("version", entry.version or "?"),
        ("permission", entry.permission),
        ("kind", entry.kind),
        ("status", _HEALTHY if report.healthy else _UNHEALTHY),
    ]
    if report.message:
        fields.append(("", report.message))
    if entry.is_default:
        fields.append(("default", "yes (llm.default_provider)"))
    fields += [(key.replace("_", " "), value) for key, value in {**entry.details, **report.details}.items()]
    call.screen.fields(fields)
    return OK


async def _health(call: Invocation, name: str) -> int:
    async with directory(call) as known:
        report = await known.health(name)
    if call.screen.as_json:
        call.screen.json(report)
        return OK if report.healthy else FAILED
    mark = _HEALTHY if report.healthy else _UNHEALTHY
    call.screen.write(mark.text, mark.style)
    call.screen.line(f"  {name}  {report.took_ms} ms" + (f"  {report.message}" if report.message else ""))
    if report.details:
        call.screen.fields([(key.replace("_", " "), value) for key, value in report.details.items()])
    return OK if report.healthy else FAILED


def _row(entry: ProviderEntry, report: HealthReport | None) -> tuple[str | Cell, ...]:
    status: str | Cell = "" if report is None else _HEALTHY if report.healthy else _UNHEALTHY
    return (
        entry.name,
        entry.version,
        entry.permission,
        status,
        entry.kind,
        "*" if entry.is_default else "",
        "" if report is None or report.healthy else report.message,
    )


def _plain(entry: ProviderEntry, report: HealthReport | None) -> dict[str, object]:
    status = {} if report is None else {"status": "healthy" if report.healthy else "unhealthy"}
    message = {"message": report.message} if report is not None and report.message else {}
    plain: dict[str, object] = msgspec.to_builtins(entry)
    return plain | status | message
