"""A run in this process whose provider nobody knows is refused before it begins.

A worker of the fleet tries again instead: there a provider may be a process that is about to register.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from worker.errors import BadSetting

if TYPE_CHECKING:
    from queue_backends import StateStore
    from worker.settings import Settings
    from worker.teams.plan import Plan


async def refuse_unknown_providers(settings: Settings, state: StateStore, names: Iterable[str]) -> None:
    """Raises `BadSetting` for a provider that is neither of this process nor registered with the fleet. Empty names
    stand for the model's own provider. Files of Python tools may register providers when they are loaded: with such,
    nothing is refused here."""
    wanted = set(filter(None, names))
    if not wanted or settings.python_tools or settings.llm_plugin_addr:
        return
    import providers
    from worker.provider_params import known_providers

    if wanted <= {*providers.available(), *settings.plugins.shadow}:
        return
    for name in sorted(wanted - {*await known_providers(state), *settings.plugins.shadow}):
        try:
            providers.create(name)
        except providers.UnknownProvider as error:
            raise BadSetting(str(error)) from error


def providers_of_plan(plan: Plan) -> set[str]:
    """Those that a team's roles and steps name; where a route decides, it says which."""
    roles = {role.config.provider for team in plan.teams for role in team.roles if not role.config.route}
    return roles | {step.provider for team in plan.teams for step in team.steps}
