"""`shoal provider config` and `config-set`: a provider's settings, and live changes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.live_values import shown, value_from
from worker.cli.screen import Cell, Column

if TYPE_CHECKING:
    from worker.provider_directory import ConfigValue


@click.command(
    "config",
    help="Show a provider's settings, their values, and where each value comes from. Secrets are masked; what the "
    "environment gives is said for this process, and may differ in a worker's.\n\n"
    + examples("shoal provider config anthropic", "shoal provider config anthropic --json"),
)
@click.argument("name")
@shoal_options
def provider_config(call: Invocation, name: str) -> int:
    """One table, or one JSON document a line."""
    return call.wait_for(_config(call, name))


@click.command(
    "config-set",
    help="Set a setting of a provider, for all workers, without a restart. VALUE is - for stdin, which keeps a secret "
    "out of the shell's history; env:NAME refers to a variable of each worker's own environment. To take it away: "
    "shoal settings unset plugin.NAME.KEY\n\n"
    + examples(
        "shoal provider config-set openai base_url http://gateway:8080/v1",
        "pass show anthropic | shoal provider config-set anthropic api_key -",
        "shoal provider config-set anthropic api_key env:TEAM_A_KEY",
    ),
)
@click.argument("name")
@click.argument("key")
@click.argument("value")
@shoal_options
def set_provider_config(call: Invocation, name: str, key: str, value: str) -> int:
    """Exit code 2 if the provider has no such setting, or the value does not fit."""
    from worker.cli.settings import put
    from worker.setting_keys import PLUGIN

    return call.wait_for(put(call, f"{PLUGIN}{name}.{key}", value_from(value)))


async def _config(call: Invocation, name: str) -> int:
    from worker.cli.provider import directory

    async with directory(call) as known:
        values = await known.config(name)
    if call.screen.as_json:
        for value in values:
            call.screen.json(_plain(value))
        return OK
    columns = (
        Column("key"),
        Column("type"),
        Column("required"),
        Column("secret"),
        Column("value"),
        Column("source"),
        Column("meaning", wide=True, style="dim"),
    )
    call.screen.table(columns, [_row(value) for value in values], empty=f"{name} has no settings")
    return OK


def _row(value: ConfigValue) -> tuple[str | Cell, ...]:
    param = value.param
    return (
        param.key,
        param.type,
        "yes" if param.required else "no",
        "yes" if param.secret else "no",
        shown(value.value, is_secret=param.secret) if value.value else "",
        value.source,
        Cell(value.problem, "bad") if value.problem else param.description,
    )


def _plain(value: ConfigValue) -> dict[str, object]:
    param = value.param
    plain: dict[str, object] = {
        "key": param.key,
        "type": param.type,
        "required": param.required,
        "secret": param.secret,
        "value": shown(value.value, is_secret=param.secret) if value.value else "",
        "source": value.source,
        "description": param.description,
    }
    return plain | ({"problem": value.problem} if value.problem else {})
