"""`shoal trigger` and `shoal notify`: what is shown of triggers and policies, and done to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from queue_backends import Backend
from tests.cli.cli_harness import Shoal, WithBackend
from tests.teams.triggers.replicas import plan
from worker.definitions import Definitions
from worker.teams.notify.model import Channel, Notify
from worker.teams.plan import InputSpec
from worker.teams.runs import Runs
from worker.teams.team_objects import StoredTeam
from worker.teams.triggers.model import Target, Trigger
from worker.teams.triggers.tokens import TriggerTokens


@pytest.fixture(autouse=True)
def _stored(with_backend: WithBackend) -> None:
    async def store(backend: Backend) -> None:
        declared = Definitions(backend.state)
        inputs = (InputSpec(name="topic", required=True),)
        await declared.teams.create(StoredTeam(slug="report", plan=plan(inputs=inputs)))
        given = {"topic": "{{ .trigger.body.topic }}"}
        target = Target(team="report", input=given)
        await declared.triggers.create(Trigger(slug="nightly", cron="0 3 * * *", targets=(target,)))
        await declared.triggers.create(Trigger(slug="on-issue", type="webhook", targets=(target,)))
        await declared.notifies.create(Notify(slug="ops", channels=(Channel(type="slack", url_env="SLACK_URL"),)))

    with_backend(store)


def _read(with_backend: WithBackend, slug: str) -> Trigger:
    async def work(backend: Backend) -> Trigger:
        return (await Definitions(backend.state).triggers.read(slug)).value

    found: Trigger = with_backend(work)
    return found


def test_triggers_are_listed_with_when_they_fire(shoal: Shoal) -> None:
    """As a table, and as one JSON document each."""
    table = shoal("trigger", "list").out
    assert "nightly" in table
    assert "0 3 * * *" in table
    listed = {each["slug"]: each for each in map(json.loads, shoal("trigger", "list", "--json").out.splitlines())}
    assert listed["nightly"]["next_fire_at"] > 0
    assert listed["on-issue"]["webhook_path"] == "/v1/triggers/on-issue/fire"
    assert listed["on-issue"]["has_token"] is False


def test_a_trigger_is_fired_by_hand(
    shoal: Shoal,
    with_backend: WithBackend,
    tmp_path: Path,
) -> None:
    """With a body, given or from a file; the run is there for `shoal serve` to drive, and the trigger shows it."""
    (tmp_path / "body.json").write_text('{"topic": "whales"}')
    for body in ('{"topic": "whales"}', "@body.json"):
        fired = shoal("trigger", "fire", "on-issue", "--body", body)
        assert fired.code == 0, fired.err

        async def given(backend: Backend, run_id: str = fired.out.strip()) -> dict[str, Any]:
            return (await Runs(backend.state).read(run_id)).state.input

        assert with_backend(given) == {"topic": "whales"}
    shown = shoal("trigger", "show", "on-issue").out
    assert "2 times" in shown
    assert "manual" in shown


def test_what_cannot_be_fired_says_why(shoal: Shoal) -> None:
    """A body that is no JSON, one that a template cannot read, a trigger that is not there."""
    assert shoal("trigger", "fire", "on-issue", "--body", "{").code == 2
    failed = shoal("trigger", "fire", "on-issue", "--body", "[]")
    assert failed.code == 1
    assert "input.topic" in failed.err
    assert shoal("trigger", "fire", "none-such").code == 4


def test_suspending_and_resuming(shoal: Shoal, with_backend: WithBackend) -> None:
    """Both at once, and what is suspended does not fire."""
    assert shoal("trigger", "suspend", "nightly", "on-issue").code == 0
    assert _read(with_backend, "nightly").suspended
    assert "suspended" in shoal("trigger", "fire", "nightly").err
    assert "suspended" in shoal("trigger", "list").out
    assert shoal("trigger", "resume", "nightly").code == 0
    assert not _read(with_backend, "nightly").suspended


def test_a_token_is_shown_once_and_opens_the_webhook(
    shoal: Shoal,
    with_backend: WithBackend,
) -> None:
    """Alone on stdout; what is stored is a hash; only webhooks have one."""
    made = shoal("trigger", "token", "on-issue")
    token = made.out.strip()
    assert token.startswith("shtrg_")

    async def opens(backend: Backend) -> bool:
        stored = await Definitions(backend.state).triggers.read("on-issue")
        kept = [value async for _, value in backend.state.scan("trigger-tokens/")]
        assert all(token.encode() not in value for value in kept)
        return await TriggerTokens(backend.state).opens(token, stored)

    assert with_backend(opens)
    assert shoal("trigger", "token", "nightly").code == 2


def test_policies_are_listed_shown_and_tested(shoal: Shoal) -> None:
    """The variable with the address is named, never its value."""
    assert "ops" in shoal("notify", "list").out
    assert "$SLACK_URL" in shoal("notify", "show", "ops").out
    assert shoal("notify", "test", "ops").code == 0
    assert shoal("notify", "show", "none-such").code == 4
