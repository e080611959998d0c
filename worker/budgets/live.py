"""Budgets as live settings: `budgets.<name>` holds a rule as JSON, and counts more than the file's of the same name.

Agents have budgets of their own beside these (`worker.agents.budget`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import structlog

from worker.budgets.gate import BudgetGate
from worker.budgets.rules import BudgetRule, Rules, read_rule
from worker.errors import BadSetting
from worker.live_settings import LiveSettings
from worker.setting_keys import register_key

if TYPE_CHECKING:
    from worker.agents.model import Agent
    from worker.definitions import Definitions
    from worker.objects import Stored

PREFIX = "budgets."
OFF = "off"
"""As a value: the file's budget of this name is not in force."""

_log = structlog.get_logger(__name__)


def rules_in_force(
    declared: Rules, live: LiveSettings, definitions: Definitions | None = None
) -> dict[str, BudgetRule]:
    """The declared budgets with the live ones over them, and those of agents. One that cannot be read is left out, and
    named in the log."""
    rules = dict(declared)
    if definitions is not None:
        from worker.agents.budget import budget_rules  # agents know budgets, so it cannot be imported first

        rules |= budget_rules(agent.value for agent in definitions.agents.all())
    for key, value in live.under(PREFIX).items():
        name = key.removeprefix(PREFIX)
        rules.pop(name, None)
        if value == OFF:
            continue
        try:
            rules[name] = _read(name, value)
        except BadSetting as error:
            _log.warning("a budget cannot be read and is not kept", setting=key, error=str(error))
    return rules


@contextmanager
def following(
    gate: BudgetGate, declared: Rules, live: LiveSettings, definitions: Definitions | None = None
) -> Iterator[None]:
    """While this is entered, the gate keeps the budgets that are in force, whenever they change."""

    def read_anew() -> None:
        gate.change(rules_in_force(declared, live, definitions))

    def changed(key: str, _value: str | None) -> None:
        if key.startswith(PREFIX):
            read_anew()

    def agent_changed(before: Stored[Agent] | None, after: Stored[Agent] | None) -> None:
        if any(stored is not None and (stored.value.budget or stored.value.namespace) for stored in (before, after)):
            read_anew()

    read_anew()
    forget = live.on_change(changed)
    forget_agents = definitions.agents.on_change(agent_changed) if definitions is not None else lambda: None
    try:
        yield
    finally:
        forget()
        forget_agents()


def _read(name: str, value: str) -> BudgetRule:
    try:
        plain = msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise BadSetting(f"{PREFIX}{name}: no JSON: {error}") from error
    return read_rule(name, plain)


def _check(key: str, value: str) -> None:
    if value != OFF:
        _read(key.removeprefix(PREFIX), value)


register_key(PREFIX, _check)
