"""`shoal settings`: the live settings of the fleet."""

from __future__ import annotations

import click

from worker.cli.failures import NOT_FOUND, OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.live_values import live_settings, shown, value_from, warn_of_plain_secret
from worker.cli.screen import Cell, Column

_KEYS = (
    "Keys: llm.default_provider, plugin.<provider>.<key> (see: shoal provider config), routes.<name>, limits.<name>, "
    "budgets.<name>. They are kept with the queue's state and reach every worker within a second; runs in flight keep "
    "what they began with."
)


@click.group(help=f"Settings that change while the fleet runs.\n\n{_KEYS}")
def settings() -> None:
    """The group; each command has its own options."""


@settings.command(
    "list",
    help="Show all live settings, or those whose key begins with PREFIX. Secrets are masked.\n\n"
    + examples("shoal settings list", "shoal settings list plugin.", "shoal settings list --json"),
)
@click.argument("prefix", default="")
@shoal_options
def list_settings(call: Invocation, prefix: str) -> int:
    """One table, or one JSON document a line."""
    return call.wait_for(_list(call, prefix))


@settings.command(
    "get",
    help="Show one live setting; a secret is masked. Exit code 4 if it is not set.\n\n"
    + examples("shoal settings get llm.default_provider"),
)
@click.argument("key")
@shoal_options
def get_setting(call: Invocation, key: str) -> int:
    """The value alone on stdout."""
    return call.wait_for(_get(call, key))


@settings.command(
    "set",
    help="Set a live setting, for all workers. VALUE is - for stdin, which keeps a secret out of the shell's history; "
    "env:NAME refers to a variable of each worker's own environment.\n\n"
    + examples(
        "shoal settings set llm.default_provider my_llm",
        "shoal settings set plugin.openai.base_url http://gateway:8080/v1",
        "pass show anthropic | shoal settings set plugin.anthropic.api_key -",
    ),
)
@click.argument("key")
@click.argument("value")
@shoal_options
def set_setting(call: Invocation, key: str, value: str) -> int:
    """Exit code 2 if there is no such setting, or the value does not fit."""
    return call.wait_for(put(call, key, value_from(value)))


@settings.command(
    "unset",
    help="Take a live setting away, for all workers. Exit code 4 if it was not set.\n\n"
    + examples("shoal settings unset llm.default_provider"),
)
@click.argument("key")
@shoal_options
def unset_setting(call: Invocation, key: str) -> int:
    """What was set by environment, file or default counts again."""
    return call.wait_for(_unset(call, key))


async def _list(call: Invocation, prefix: str) -> int:
    from worker.setting_keys import is_secret

    async with live_settings(call) as (live, state):
        rows = [
            (key, shown(value, is_secret=await is_secret(state, key)), "") for key, value in live.under(prefix).items()
        ]
        rows += [(key, "?", reason) for key, reason in live.unreadable.items() if key.startswith(prefix)]
    if call.screen.as_json:
        for key, value, problem in sorted(rows):
            call.screen.json({"key": key, "value": value} | ({"problem": problem} if problem else {}))
        return OK
    table = [(key, value, Cell(problem, "bad")) for key, value, problem in sorted(rows)]
    columns = (Column("key"), Column("value"), Column("problem", wide=True))
    call.screen.table(columns, table, empty="no live setting is set" + (f" under {prefix}" if prefix else ""))
    return OK


async def _get(call: Invocation, key: str) -> int:
    from worker.setting_keys import is_secret

    async with live_settings(call) as (live, state):
        value = live.get(key)
        problem = live.unreadable.get(key, "")
        secret = await is_secret(state, key)
    if value is None:
        call.screen.note(problem or f"{key} is not set", "bad" if problem else "dim")
        return NOT_FOUND
    text = shown(value, is_secret=secret, whole=True)
    if call.screen.as_json:
        call.screen.json({"key": key, "value": text, "secret": secret})
    else:
        call.screen.line(text)
    return OK


async def put(call: Invocation, key: str, value: str) -> int:
    """Set one setting and say so."""
    from worker.setting_keys import check_key, is_secret

    async with live_settings(call) as (live, state):
        await check_key(state, key, value)
        secret = await is_secret(state, key)
        if secret:
            warn_of_plain_secret(call.screen, live.sealer, key, value)
        await live.set(key, value)
    if call.screen.as_json:
        call.screen.json({"key": key, "value": shown(value, is_secret=secret)})
    else:
        call.screen.line(f"{key} = {shown(value, is_secret=secret)}")
        call.screen.note("workers have it within a second; runs in flight keep what they began with")
    return OK


async def _unset(call: Invocation, key: str) -> int:
    async with live_settings(call) as (live, _state):
        was_there = await live.unset(key)
    if call.screen.as_json:
        call.screen.json({"key": key, "unset": was_there})
    elif was_there:
        call.screen.line(f"{key} is not set any more")
    else:
        call.screen.note(f"{key} was not set")
    return OK if was_there else NOT_FOUND
