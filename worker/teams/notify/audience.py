"""Which notification policies want to tell of something: those that a team names, and those that are for all."""

from __future__ import annotations

from collections.abc import Iterator

import structlog

from worker.definitions import Definitions
from worker.objects import Stored
from worker.teams.notify.model import OF_BUDGETS, Notify, NotifyEvent
from worker.teams.notify.outbox import Happening
from worker.teams.notify.payload import NotifyPayload
from worker.teams.team_objects import StoredTeam

log = structlog.get_logger(__name__)


class Audience:
    """Looks through the policies and teams that are declared at the moment."""

    def __init__(self, definitions: Definitions) -> None:
        self._policies = definitions.notifies
        self._teams = definitions.teams

    def of(self, happening: Happening) -> list[Stored[Notify]]:
        """The policies that tell of it."""
        payload = happening.payload
        found: dict[int, Stored[Notify]] = {}
        for name, namespace in self._named(happening):
            named = self._policies.visible(name, namespace)
            if named is None:
                log.warning("there is no notification policy of that name", policy=name, team=payload.team)
            else:
                found[named.id] = named
        if happening.is_test:
            return list(found.values())
        for each in self._policies.all():
            if each.value.is_for_all and each.value.namespace in ("", payload.namespace):
                found.setdefault(each.id, each)
        return [
            each
            for each in found.values()
            if each.value.is_active and (not each.value.on or payload.event in each.value.on)
        ]

    def _named(self, happening: Happening) -> set[tuple[str, str]]:
        """Names of policies, and the namespaces in which they are meant."""
        payload = happening.payload
        if happening.policy:
            return {(happening.policy, payload.namespace)}
        return {
            (team.plan.team.notify, payload.namespace or team.namespace)
            for team in self._teams_of(payload)
            if team.plan.team.notify
        }

    def _teams_of(self, payload: NotifyPayload) -> Iterator[StoredTeam]:
        """The teams that a budget or an agent's trouble is about: who noticed it knows names alone."""
        if payload.event in OF_BUDGETS and (stored := self._teams.visible(payload.team, payload.namespace)):
            yield stored.value
        if payload.event is NotifyEvent.AGENT_DEGRADED:
            yield from (each.value for each in self._teams.all() if _has_agent(each.value, payload))


def _has_agent(team: StoredTeam, payload: NotifyPayload) -> bool:
    """Whether a team has the agent, or calls the provider, that is in trouble."""
    if payload.namespace not in ("", team.namespace):
        return False
    return any(payload.team in (role.agent, role.config.provider) for role in team.plan.team.roles)
