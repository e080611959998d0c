"""Teams as the fleet has them: `shoal team apply FILE` stores what a file declares; triggers and runs take it there.

A stored team holds its whole plan, so that a run of it needs no file, and no secret: those stay in the environment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from worker.objects import ObjectExists, ObjectNotFound, ObjectStore
from worker.objects.errors import BadObject
from worker.objects.field_checks import check_words
from worker.teams.plan import Plan

if TYPE_CHECKING:
    from worker.definitions import Definitions
    from worker.teams.bundle import Bundle

MOST_SOURCE_CHARS = 500


class StoredTeam(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A team, or an agent of a team file, as it is stored."""

    slug: str = ""
    """Its address: the document's `metadata.name`."""
    name: str = ""
    """For people; empty: the slug."""
    namespace: str = ""
    """Whose it is (a tenant); empty: everybody's. Not the Kubernetes namespace of the document."""
    description: str = ""
    plan: Plan
    """With the teams that its roles are. An agent's plan has one step."""
    source: str = ""
    """The file that it came from."""
    is_active: bool = True
    """No run of one that is not is started; those that go on end."""


class Change(Struct, frozen=True, kw_only=True):
    """What `apply` or `remove` did to one object."""

    kind: Literal["team", "agent", "trigger", "notify"]
    slug: str
    namespace: str = ""
    what: Literal["created", "changed", "unchanged", "removed"]


_Piece: TypeAlias = tuple[Literal["team", "agent", "trigger", "notify"], ObjectStore[Any], Any]


def check_team(team: StoredTeam) -> None:
    """Raise `BadObject` for a team that cannot be run."""
    what = f"team {team.slug!r}"
    check_words(what, team.name, team.description)
    if len(team.source) > MOST_SOURCE_CHARS or not team.source.isprintable():
        raise BadObject(f"{what}: source is longer than {MOST_SOURCE_CHARS} characters, or cannot be shown")
    if all(each.name != team.plan.name for each in team.plan.teams):
        raise BadObject(f"{what}: its plan is of {team.plan.name!r}, and has no team of that name")


async def apply(definitions: Definitions, bundle: Bundle, namespace: str = "", *, by: str = "") -> list[Change]:
    """Store all of a file: notification policies, agents, teams, triggers. What is as it was stays at its version.

    Everything is checked before the first object is written, and triggers, which start things, are written last; the
    same again finishes what was interrupted. Objects that an earlier form of the file had are left alone. `definitions`
    are entered, or loaded. Raises `BadObject`, `BackendUnavailable`.
    """
    pieces = list(_pieces(definitions, bundle, namespace))
    for _, store, value in pieces:
        store.check(value)
    _check_references(definitions, pieces, namespace)
    return [await _put(kind, store, value, by) for kind, store, value in pieces]


async def remove(definitions: Definitions, bundle: Bundle, namespace: str = "") -> list[Change]:
    """Delete all that a file declares, the triggers first; what is not there is passed over. Raises
    `BackendUnavailable`."""
    removed = []
    for kind, store, value in reversed(list(_pieces(definitions, bundle, namespace))):
        try:
            await store.delete(value.slug, namespace)
        except ObjectNotFound:
            continue
        removed.append(Change(kind=kind, slug=value.slug, namespace=namespace, what="removed"))
    return removed


def _pieces(definitions: Definitions, bundle: Bundle, namespace: str) -> Iterator[_Piece]:
    source = "".join(filter(str.isprintable, bundle.file))[-MOST_SOURCE_CHARS:]
    for policy in bundle.notifies:
        yield "notify", definitions.notifies, replace(policy, namespace=namespace)
    for agent in bundle.agents:
        if agent not in bundle.teams:  # `plan` means the team by a name that both have
            yield "agent", definitions.team_agents, _stored(bundle.plan(agent), namespace, source)
    for team in bundle.teams:
        yield "team", definitions.teams, _stored(bundle.plan(team), namespace, source)
    for trigger in bundle.triggers:
        yield "trigger", definitions.triggers, replace(trigger, namespace=namespace)


def _stored(plan: Plan, namespace: str, source: str) -> StoredTeam:
    return StoredTeam(slug=plan.name, namespace=namespace, description=plan.team.description, plan=plan, source=source)


def _check_references(definitions: Definitions, pieces: list[_Piece], namespace: str) -> None:
    """A trigger's teams and agents have to be in the file or in the fleet: it could only ever fail."""
    own = {(kind, value.slug) for kind, _, value in pieces}
    for kind, _, value in pieces:
        if kind != "trigger":
            continue
        for target in value.targets:
            if target.team and ("team", target.team) not in own:
                if definitions.teams.visible(target.team, namespace) is None:
                    raise BadObject(
                        f"trigger {value.slug!r}: there is no team {target.team!r}, in the file or in the fleet"
                    )
            elif target.agent and ("agent", target.agent) not in own:
                known = (definitions.team_agents, definitions.agents)
                if all(store.visible(target.agent, namespace) is None for store in known):
                    raise BadObject(
                        f"trigger {value.slug!r}: there is no agent {target.agent!r}, in the file or in the fleet"
                    )


async def _put(kind: Any, store: ObjectStore[Any], value: Any, by: str) -> Change:
    while True:
        try:
            before = await store.read(value.slug, value.namespace)
            after = await store.update(value, by=by)
            what: Any = "unchanged" if after.version == before.version else "changed"
        except ObjectNotFound:
            try:
                await store.create(value, by=by)
            except ObjectExists:  # somebody else has created it meanwhile
                continue
            what = "created"
        return Change(kind=kind, slug=value.slug, namespace=value.namespace, what=what)
