"""Triggers, notification policies, runs that a file asks for, budgets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.teams.kinds.files import AGENT, bundle, document, findings, flow
from worker.teams.bundle import RunSpec
from worker.teams.notify.model import Channel, Header, Notify, NotifyEvent
from worker.teams.triggers.model import Target, Trigger

FLOW = flow("{name: a, arkAgent: writer}")


def test_a_schedule() -> None:
    """With what is ours: its time zone, and how late a tick may be made up for."""
    event = document(
        "SwarmEvent",
        "  description: Each morning.\n"
        "  source: {type: cron, cron: '0 9 * * 1-5', timeZone: Europe/Berlin, startingDeadlineSeconds: 5m}\n"
        "  targets:\n"
        "    - {team: f, input: {at: '{{ .trigger.firedAt }}'}}\n"
        "    - {agent: writer, prompt: 'Go: {{ .trigger.name }}'}\n"
        "  concurrencyPolicy: Forbid\n"
        "  suspended: true\n",
        name="morning",
    )
    assert bundle(FLOW + "---\n" + event).triggers == (
        Trigger(
            slug="morning",
            description="Each morning.",
            type="cron",
            cron="0 9 * * 1-5",
            time_zone="Europe/Berlin",
            starting_deadline_s=300.0,
            targets=(
                Target(team="f", input={"at": "{{ .trigger.firedAt }}"}),
                Target(agent="writer", prompt="Go: {{ .trigger.name }}"),
            ),
            concurrency="Forbid",
            suspended=True,
        ),
    )


@pytest.mark.parametrize(
    "source",
    [
        "{type: team-output, teamOutput: {name: f, onPhase: Failed}}",
        "{type: pipeline-output, pipelineOutput: {name: f, onPhase: Failed}}",
    ],
)
def test_another_teams_output(source: str) -> None:
    """In either generation's words."""
    event = document("ArkEvent", f"  source: {source}\n  targets: [{{pipeline: f}}]\n")
    [trigger] = bundle(FLOW + "---\n" + event).triggers
    assert (trigger.type, trigger.watched_team, trigger.on_phase) == ("team-output", "f", "Failed")
    assert trigger.targets == (Target(team="f"),)


def test_a_webhook() -> None:
    """Its token may stand in a variable of the gateway."""
    event = document("SwarmEvent", "  source: {type: webhook, tokenEnv: HOOK_TOKEN}\n  targets: [{team: f}]\n")
    [trigger] = bundle(FLOW + "---\n" + event).triggers
    assert (trigger.type, trigger.token_env) == ("webhook", "HOOK_TOKEN")


def test_a_policy_of_the_newest_form(tmp_path: Path) -> None:
    """Addresses and headers from Secrets become names of variables; their values go into the environment."""
    policy = document(
        "SwarmNotify",
        "  on: [TeamFailed, TeamTimedOut]\n"
        "  channels:\n"
        "    - type: slack\n"
        "      slack: {webhookURLFrom: {name: alerts, key: url}}\n"
        "      template: '{{ .team }}'\n"
        "    - type: webhook\n"
        "      webhook:\n"
        "        url: https://x/\n"
        "        urlFrom: {name: alerts, key: other}\n"
        "        method: PUT\n"
        "        headers:\n"
        "          [{name: A, value: b}, {name: C, valueFrom: {name: alerts, key: c}}, {name: D, valueEnv: DD}]\n"
        "  rateLimitSeconds: 0\n"
        "  forAll: true\n",
        name="n",
    )
    secret = (
        "kind: Secret\nmetadata: {name: alerts}\nstringData: {url: 'https://hooks/1', other: 'https://o/', c: cc}\n"
    )
    found = bundle(policy + "---\n" + secret, tmp_path)
    assert found.notifies == (
        Notify(
            slug="n",
            on=(NotifyEvent.TEAM_FAILED, NotifyEvent.TEAM_TIMED_OUT),
            channels=(
                Channel(type="slack", url_env="ALERTS_URL", template="{{ .team }}"),
                Channel(
                    url_env="ALERTS_OTHER",
                    method="PUT",
                    headers=(
                        Header(name="A", value="b"),
                        Header(name="C", value_env="ALERTS_C"),
                        Header(name="D", value_env="DD"),
                    ),
                ),
            ),
            rate_limit_s=0,
            is_for_all=True,
        ),
    )
    assert found.env == {"ALERTS_URL": "https://hooks/1", "ALERTS_OTHER": "https://o/", "ALERTS_C": "cc"}


def test_a_policy_of_the_first_form() -> None:
    """One channel, a list of events with templates of their own, and a window."""
    policy = document(
        "ArkNotify",
        "  channel: {type: slack, slack: {webhookUrlSecretRef: {name: alerts, key: webhookUrl}}}\n"
        "  events: [{type: TeamFailed, template: 'x'}, {type: TeamSucceeded}]\n"
        "  rateLimiting: {windowSeconds: 60, maxPerWindow: 1}\n",
        name="n",
    )
    [found] = bundle(policy).notifies
    assert found.on == (NotifyEvent.TEAM_FAILED, NotifyEvent.TEAM_SUCCEEDED)
    assert found.channels == (Channel(type="slack", url_env="ALERTS_WEBHOOKURL"),)
    assert found.rate_limit_s == 60


def test_runs_that_a_file_asks_for() -> None:
    """Of a team with its input, or of an agent with a prompt."""
    text = "---\n".join(
        [
            FLOW,
            document("SwarmRun", "  teamRef: f\n  input: {n: 3}\n", name="one"),
            document("SwarmRun", "  agent: writer\n  prompt: Write.\n", name="two"),
        ]
    )
    assert bundle(text).runs == (
        RunSpec(name="one", team="f", input={"n": 3}),
        RunSpec(name="two", team="writer", input={"prompt": "Write."}),
    )


def test_budgets_and_policies_are_the_fleets() -> None:
    """They are told of, so that nobody thinks they hold."""
    text = "---\n".join(
        [
            document("SwarmBudget", "  selector: {team: t}\n  limit: 5\n"),
            document("SwarmPolicy", "  limits: {}\n"),
            AGENT,
        ]
    )
    assert [each.message for each in findings(text)] == [
        "SwarmBudget 'x' is not used: budgets are the fleet's own, set with `shoal budgets`",
        "kind 'SwarmPolicy' is skipped: policies are the fleet's own: access groups, `shoal budgets`, `shoal limits`",
    ]
