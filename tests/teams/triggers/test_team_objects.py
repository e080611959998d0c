"""What a team file declares, stored for the fleet: all of it, again without harm, and taken away."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from queue_backends import open_backend
from tests.teams.triggers.replicas import plan
from worker.definitions import Definitions
from worker.objects import BadObject
from worker.teams.bundle import Bundle
from worker.teams.notify.model import Channel, Notify
from worker.teams.plan import Plan
from worker.teams.team_objects import apply, remove
from worker.teams.triggers.model import Target, Trigger


@pytest.fixture
async def definitions() -> AsyncIterator[Definitions]:
    """Those of a fresh store."""
    async with await open_backend("memory://") as backend, Definitions(backend.state) as opened:
        yield opened


def _bundle(**changes: object) -> Bundle:
    plans: dict[str, Plan] = {name: plan(name) for name in ("report", "writer")}
    given = {
        "file": "team.yaml",
        "plans": plans,
        "teams": ("report",),
        "agents": ("writer",),
        "triggers": (
            Trigger(slug="nightly", cron="@daily", targets=(Target(team="report"), Target(agent="writer", prompt="x"))),
        ),
        "notifies": (Notify(slug="ops", channels=(Channel(url="https://example.com/hook"),)),),
        **changes,
    }
    return Bundle(**given)  # type: ignore[arg-type]  # a table of fields


async def test_everything_of_a_file_is_stored_and_again_changes_nothing(definitions: Definitions) -> None:
    """In the namespace; the second time, all is as it was."""
    first = await apply(definitions, _bundle(), "acme", by="me")
    assert {(each.kind, each.slug) for each in first} == {
        ("notify", "ops"),
        ("agent", "writer"),
        ("team", "report"),
        ("trigger", "nightly"),
    }
    assert {each.what for each in first} == {"created"}
    assert {each.what for each in await apply(definitions, _bundle(), "acme")} == {"unchanged"}
    stored = definitions.teams.get("report", "acme")
    assert stored is not None
    assert (stored.value.source, stored.updated_by) == ("team.yaml", "me")
    assert definitions.teams.get("report") is None


async def test_a_change_is_one_new_version_of_what_differs(definitions: Definitions) -> None:
    """And nothing else."""
    await apply(definitions, _bundle())
    policy = Notify(slug="ops", channels=(Channel(url="https://example.com/other"),))
    changes = await apply(definitions, _bundle(notifies=(policy,)))
    assert [each.slug for each in changes if each.what == "changed"] == ["ops"]


async def test_nothing_is_stored_of_a_file_with_a_mistake(definitions: Definitions) -> None:
    """A trigger for a team that is nowhere, a schedule that is none, a name that is no address."""
    wrong = (
        {"triggers": (Trigger(slug="x", cron="@daily", targets=(Target(team="nowhere"),)),)},
        {"triggers": (Trigger(slug="x", cron="daily", targets=(Target(team="report"),)),)},
        {"notifies": (Notify(slug="x"),)},
        {"teams": ("Not A Slug",), "plans": {"Not A Slug": plan("Not A Slug"), "writer": plan("writer")}},
    )
    for changes in wrong:
        with pytest.raises(BadObject):
            await apply(definitions, _bundle(**changes))
    assert not definitions.teams.all()
    assert not definitions.notifies.all()


async def test_a_trigger_may_start_what_the_fleet_has_already(definitions: Definitions) -> None:
    """A second file, with a trigger alone."""
    await apply(definitions, _bundle(triggers=()))
    trigger = Trigger(slug="later", cron="@daily", targets=(Target(team="report"),))
    only = Bundle(file="trigger.yaml", triggers=(trigger,))
    assert [each.what for each in await apply(definitions, only)] == ["created"]


async def test_what_a_file_declares_is_removed_and_nothing_else(definitions: Definitions) -> None:
    """Twice without harm; what another file stored stays."""
    await apply(definitions, _bundle())
    other = Bundle(file="other.yaml", plans={"other": plan("other")}, teams=("other",))
    await apply(definitions, other)
    removed = await remove(definitions, _bundle())
    assert [each.kind for each in removed] == ["trigger", "team", "agent", "notify"]
    assert await remove(definitions, _bundle()) == []
    assert [each.value.slug for each in definitions.teams.all()] == ["other"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"targets": ()}, "1 to 20"),
        ({"targets": (Target(team="a", agent="b"),)}, "a team or an agent"),
        ({"targets": (Target(),)}, "a team or an agent"),
        ({"targets": (Target(agent="a"),)}, "prompt is empty"),
        ({"targets": (Target(team="a", input={"x": "{{ .trigger"}),)}, "input.x:1:"),
        ({"cron": ""}, "cron is empty"),
        ({"starting_deadline_s": 0.0}, "starting_deadline_s is 0"),
        ({"type": "team-output", "cron": ""}, "watched_team is empty"),
        ({"type": "webhook"}, "cron is for triggers of type 'cron'"),
        ({"type": "webhook", "cron": "", "token_env": "sk-secret value"}, "never the value"),
        *(
            ({"type": "webhook", "cron": "", "token_env": name, "namespace": "acme"}, "SHOAL_TENANT_ACME__<NAME>")
            for name in (
                "HOOK",
                "SHOAL_TENANT_ACME_EU__HOOK",
                "SHOAL_TENANT_ACME__EU__HOOK",
                "SHOAL_TENANT_ACME___HOOK",
                "SHOAL_TENANT_ACME__",
            )
        ),
    ],
)
async def test_a_trigger_that_cannot_work_is_refused(
    definitions: Definitions, fields: dict[str, object], told: str
) -> None:
    """With the field, what is wrong with it, and what is allowed; a secret in the wrong place is not repeated."""
    given = {"slug": "x", "cron": "@daily", "targets": (Target(team="report"),), **fields}
    with pytest.raises(BadObject, match=told) as error:
        definitions.triggers.check(Trigger(**given))  # type: ignore[arg-type]  # a table of fields
    assert "sk-secret" not in str(error.value)


@pytest.mark.parametrize(
    ("channel", "told"),
    [
        (Channel(), "no address"),
        (Channel(url="ftp://x"), "no address"),
        (Channel(url="https://user:pass@host/"), "holds a password"),
        (Channel(type="slack", url="https://hooks.slack.com/services/T/B/secret"), "is a secret"),
        (Channel(url="https://x/", template="{{ .event"), "template:1:"),
    ],
)
async def test_a_channel_that_cannot_work_is_refused(definitions: Definitions, channel: Channel, told: str) -> None:
    """A Slack address never gets into an object."""
    with pytest.raises(BadObject, match=told) as error:
        definitions.notifies.check(Notify(slug="x", channels=(channel,)))
    assert "T/B/secret" not in str(error.value)
