"""What teams, triggers and notification policies refer to: what is odd is said, what others need is not deleted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from worker.agents.references import References
from worker.objects import ObjectInUse
from worker.teams.notify.model import Notify
from worker.teams.team_objects import StoredTeam
from worker.teams.triggers.model import Trigger

if TYPE_CHECKING:
    from worker.definitions import Definitions


class TeamReferences(References):
    """Checks them against what the fleet has. An order is not asked for: what is not there yet is a warning."""

    def __init__(self, definitions: Definitions) -> None:
        super().__init__(definitions)
        self._fleet = definitions

    def check(self, value: Any) -> list[str]:
        """What is odd about one, as warnings."""
        match value:
            case StoredTeam():
                return list(self._team(value))
            case Trigger():
                return list(self._trigger(value))
            case _:
                return []

    def check_unused(self, value: Any, kind: str) -> None:
        """Raise `ObjectInUse` for a team that triggers start or watch, or a policy that teams name."""
        users = sorted(self._who_uses(value))
        if users:
            raise ObjectInUse(f"{kind} {value.slug!r} is used by {', '.join(users[:10])}: change or delete those first")

    def _team(self, stored: StoredTeam) -> Iterator[str]:
        for team in stored.plan.teams:
            if team.notify and self._fleet.notifies.visible(team.notify, stored.namespace) is None:
                yield f"team {team.name!r} names notification policy {team.notify!r}, which is not there"

    def _trigger(self, trigger: Trigger) -> Iterator[str]:
        what, where = f"trigger {trigger.slug!r}", trigger.namespace
        if trigger.watched_team and self._fleet.teams.visible(trigger.watched_team, where) is None:
            yield f"{what} watches team {trigger.watched_team!r}, which is not there"
        for target in trigger.targets:
            if target.team and self._fleet.teams.visible(target.team, where) is None:
                yield f"{what}: there is no team {target.team!r}"
            known = (self._fleet.team_agents, self._fleet.agents)
            if target.agent and all(store.visible(target.agent, where) is None for store in known):
                yield f"{what}: no agent {target.agent!r} is declared; the settings may have it"

    def _who_uses(self, value: Any) -> Iterator[str]:
        if isinstance(value, StoredTeam):
            for stored in self._fleet.triggers.all():
                trigger = stored.value
                named = {trigger.watched_team, *(target.team for target in trigger.targets)}
                if value.slug in named and self._means(
                    self._fleet.teams, value.slug, trigger.namespace, value.namespace
                ):
                    yield f"trigger {trigger.slug}"
        elif isinstance(value, Notify):
            for each in self._fleet.teams.all():
                named = {team.notify for team in each.value.plan.teams}
                if value.slug in named and self._means(
                    self._fleet.notifies, value.slug, each.value.namespace, value.namespace
                ):
                    yield f"team {each.value.slug}"
