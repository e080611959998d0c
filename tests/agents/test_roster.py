"""Which agents there are, and who sees and may use which."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from providers import AgentConfig
from queue_backends import open_backend
from worker.agents import Agent, App, Llm, Roster
from worker.agents.errors import AgentInactive, NotInGroup, OtherApp, OtherNamespace
from worker.definitions import Definitions
from worker.errors import AccessDenied, AgentNotFound, BadSetting
from worker.gateway.caller import Caller, Scope
from worker.settings import Settings, load_settings

SETTINGS = Settings(
    agent=AgentConfig(model="house", options={"api_key": "sesame"}),
    agents={"poet": AgentConfig(name="poet", model="m", system_prompt="Rhyme."), "My Clerk": AgentConfig(model="n")},
    agent_name="porter",
)


@pytest.fixture
async def there() -> AsyncIterator[Definitions]:
    """Agents of everybody, of a tenant, of a group, of an app, and ones that are switched off."""
    async with await open_backend("memory://") as backend, Definitions(backend.state) as declared:
        await declared.llms.create(Llm(slug="model", model="m"))
        await declared.apps.create(App(slug="desk", llms=("model",)))
        await declared.apps.create(App(slug="closed", llms=("model",), is_active=False))
        await declared.agents.create(Agent(slug="open", name="Open House"))
        await declared.agents.create(Agent(slug="staff", groups=("staff", "board")))
        await declared.agents.create(Agent(slug="off", is_active=False))
        await declared.agents.create(Agent(slug="of-desk", app="desk"))
        await declared.agents.create(Agent(slug="of-closed", app="closed"))
        await declared.agents.create(Agent(slug="acmes", namespace="acme"))
        await declared.agents.create(Agent(slug="open", namespace="acme"))
        yield declared


@pytest.fixture
def roster(there: Definitions) -> Roster:
    """All of them, with those of the settings."""
    return Roster(SETTINGS, there)


def caller(**fields: object) -> Caller:
    """Somebody with a key for agents."""
    return Caller(**{"id": "key:1", "scopes": frozenset({Scope.AGENTS_USE}), **fields})  # type: ignore[arg-type]


def slugs(roster: Roster, who: Caller, **options: bool) -> list[str]:
    """What somebody sees."""
    return [agent.value.slug for agent in roster.visible_to(who, **options)]


def test_all_agents_are_there_the_newest_object_first(roster: Roster, there: Definitions) -> None:
    """Then those of the settings, by name, the worker's own among them."""
    assert [agent.value.slug for agent in roster.all()][:2] == ["open", "acmes"]
    assert [agent.value.slug for agent in roster.all()][7:] == ["My Clerk", "poet", "porter"]


def test_agents_of_settings_have_ids_of_their_own_that_stay(there: Definitions) -> None:
    """The same in every process, whatever else is declared, within 32 bits, and never an object's."""
    ids = {agent.value.slug: agent.id for agent in Roster(SETTINGS, there).all()}
    alone = {agent.value.slug: agent.id for agent in Roster(SETTINGS).all()}
    assert {name: ids[name] for name in alone} == alone
    assert len(set(alone.values())) == 3
    assert all(2_000_000_000 <= each < 2**32 for each in alone.values())
    for name, number in alone.items():
        assert Roster(SETTINGS, there).find(number).value.slug == name


def test_an_agent_of_settings_tells_no_secret(roster: Roster) -> None:
    """Provider options may hold keys: they are no part of what is shown."""
    assert "sesame" not in repr(roster.find("porter"))
    assert roster.find("poet").value.system_prompt == "Rhyme."
    assert Roster(Settings()).find("default").value.slug == "default"


def test_an_agent_is_found_by_slug_name_or_id(roster: Roster, there: Definitions) -> None:
    """As text or as a number; the slug counts before everything else."""
    stored = there.agents.get("open")
    assert stored is not None
    for reference in ("open", "Open House", stored.id, str(stored.id)):
        assert roster.find(reference) == stored
    assert roster.find("My Clerk").value.model == "n"
    for unknown in ("nobody", "", 999, "999", "-1", "٣", "9" * 30):
        with pytest.raises(AgentNotFound):
            roster.find(unknown)


def test_a_namespace_has_its_own_and_everybodys(roster: Roster, there: Definitions) -> None:
    """Its own counts before everybody's; another's is not found, by slug or by id."""
    own, acmes = there.agents.get("open", "acme"), there.agents.get("acmes", "acme")
    assert own is not None
    assert acmes is not None
    assert roster.find("open", "acme") == own
    assert roster.find("staff", "acme").value.namespace == ""
    for reference in ("acmes", acmes.id, str(acmes.id), own.id):
        with pytest.raises(AgentNotFound):
            roster.find(reference, "beta")
    assert roster.find("acmes") == acmes  # without a namespace: anybody's, if it is the only one


async def test_a_name_that_two_have_finds_neither(roster: Roster, there: Definitions) -> None:
    """Nobody gets another agent than the one that was meant."""
    await there.agents.create(Agent(slug="other", name="Open House"))
    with pytest.raises(AgentNotFound):
        roster.find("Open House")


@pytest.mark.parametrize(
    ("who", "seen", "unseen"),
    [
        (caller(), {"open", "of-desk", "acmes", "poet"}, {"staff", "off", "of-closed"}),
        (caller(groups=frozenset({"staff"})), {"staff", "open"}, {"off"}),
        (caller(groups=frozenset({"other"})), {"open"}, {"staff"}),
        (caller(tenant="acme"), {"open", "acmes", "of-desk", "poet"}, {"staff"}),
        (caller(tenant="beta"), {"open", "poet"}, {"acmes", "staff"}),
        (caller(app="desk"), {"of-desk"}, {"open", "poet", "porter", "acmes", "of-closed"}),
        (caller(app="nowhere"), set(), {"open", "of-desk", "poet"}),
        (caller(scopes=frozenset({Scope.ADMIN})), {"staff", "open", "acmes"}, {"off"}),
        (caller(scopes=frozenset({Scope.ADMIN}), tenant="beta"), {"staff", "open"}, {"acmes"}),
    ],
)
def test_who_sees_what(roster: Roster, who: Caller, seen: set[str], unseen: set[str]) -> None:
    """By groups, tenant and app; and what is seen may be used."""
    found = set(slugs(roster, who))
    assert found >= seen
    assert found.isdisjoint(unseen)
    for agent in roster.visible_to(who):
        roster.check_access(agent, who)


def test_inactive_ones_are_seen_on_request(roster: Roster) -> None:
    """For lists of administrators and of Studio's clients."""
    assert {"off", "of-closed"} <= set(slugs(roster, caller(), with_inactive=True))


def test_a_tenants_own_agent_hides_everybodys_of_that_slug(roster: Roster) -> None:
    """It sees one agent of a slug, not two."""
    assert slugs(roster, caller(tenant="acme")).count("open") == 1


@pytest.mark.parametrize(
    ("slug", "who", "error"),
    [
        ("off", caller(), AgentInactive),
        ("of-closed", caller(), AgentInactive),
        ("staff", caller(), NotInGroup),
        ("acmes", caller(tenant="beta"), OtherNamespace),
        ("open", caller(app="desk"), OtherApp),
        ("porter", caller(app="desk"), OtherApp),
    ],
)
def test_every_refusal_says_why(roster: Roster, slug: str, who: Caller, error: type[AccessDenied]) -> None:
    """Each with an error of its own, all of one family."""
    with pytest.raises(error):
        roster.check_access(roster.find(slug), who)
    with pytest.raises((error, AgentNotFound)):
        roster.find_for(slug, who)


async def test_an_app_key_of_a_tenant_is_not_everybodys_app_of_that_slug(roster: Roster, there: Definitions) -> None:
    """The tenant's app and everybody's have the same slug: the key opens the agents of its own one alone."""
    await there.apps.create(App(slug="desk", namespace="acme", llms=("model",)))
    await there.agents.create(Agent(slug="acme-desk", namespace="acme", app="desk"))
    assert slugs(roster, caller(tenant="acme", app="desk")) == ["acme-desk"]
    assert slugs(roster, caller(app="desk")) == ["of-desk"]


async def test_an_object_counts_before_an_agent_of_the_settings(roster: Roster, there: Definitions) -> None:
    """With its own id and groups; deleted, the settings' one is back."""
    made = await there.agents.create(Agent(slug="poet", groups=("board",)))
    assert roster.find("poet") == made
    assert "poet" not in slugs(roster, caller())
    assert not roster.is_from_settings(made)
    await there.agents.delete("poet")
    assert roster.is_from_settings(roster.find("poet"))


def test_agents_of_the_file_may_have_groups_and_a_description(tmp_path: Path) -> None:
    """In `agents:`, or by name for the worker's own; what is no list of groups is refused."""
    file = tmp_path / "shoal.yaml"
    file.write_text(
        "agent: {model: m}\nagent_groups: {default: [board]}\n"
        "agents:\n  poet: {model: m, groups: [staff], description: Rhymes}\n  clerk: {model: m, groups: }\n"
    )
    roster = Roster(load_settings({}, file=file))
    assert roster.find("poet").value.description == "Rhymes"
    assert slugs(roster, caller()) == ["clerk"]
    assert slugs(roster, caller(groups=frozenset({"staff"}))) == ["clerk", "poet"]
    assert slugs(roster, caller(groups=frozenset({"board"}))) == ["clerk", "default"]
    file.write_text("agents: {poet: {model: m, groups: {staff: yes}}}")
    with pytest.raises(BadSetting, match=r"agents\.poet\.groups"):
        load_settings({}, file=file)
