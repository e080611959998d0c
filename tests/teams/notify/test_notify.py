"""Notifications: who is told of what, in which words, how often, and what happens when receivers or gateways fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from queue_backends import Backend, TokenUsage, open_backend
from tests.gateway.callback_receiver import Receiver
from tests.teams.triggers.replicas import plan
from worker.budgets.warning import BudgetWarning
from worker.definitions import Definitions
from worker.net_guard import NetGuard
from worker.objects import Stored
from worker.teams.notify.degradation import Degradation
from worker.teams.notify.delivery import NotifyDelivery
from worker.teams.notify.links import Links
from worker.teams.notify.model import Channel, Header, Notify, NotifyEvent
from worker.teams.notify.outbox import DUE, EVENTS, Happening
from worker.teams.notify.sending import Persistence
from worker.teams.notify.service import DispatchView, Notifications
from worker.teams.run_events import RunEnded, StepEnded, StepStarted, TaskEnded, TaskSubmitted
from worker.teams.run_state import Phase
from worker.teams.runs import Run, Runs
from worker.teams.team_objects import StoredTeam

WITHIN_S = 30.0
QUICK = Persistence(again_after_s=(0.01, 0.01), answer_within_s=10.0)
HERE = NetGuard(allowed=("127.0.0.1",))


class Office:
    """One gateway's part in notifications, and what tests do with it."""

    def __init__(self, backend: Backend, definitions: Definitions) -> None:
        self.definitions = definitions
        self.notifications = Notifications(backend.state)
        self.runs = Runs(backend.state)
        self.backend = backend

    async def store(self, *channels: Channel, slug: str = "team-events", **fields: Any) -> Stored[Notify]:
        """A policy."""
        stored = await self.definitions.notifies.create(Notify(slug=slug, channels=channels, **fields))
        async with asyncio.timeout(WITHIN_S):
            while self.definitions.notifies.get(slug, stored.value.namespace) != stored:
                await asyncio.sleep(0.002)
        return stored

    async def ended(
        self,
        phase: Phase = Phase.SUCCEEDED,
        *,
        policy: str = "team-events",
        tenant: str = "",
        usage: TokenUsage | None = None,
        cost_usd: float | None = None,
        **more: Any,
    ) -> Run:
        """A run of the team `report` that has ended, and that notifications were told of."""
        run_id = await self.runs.start(plan(notify=policy), {}, tenant=tenant)
        now = time.time()
        await self.runs.append(run_id, StepStarted(at=now, step="write"))
        of_task: dict[str, Any] = {"at": now, "step": "write", "iteration": 1, "attempt": 1, "purpose": "step"}
        await self.runs.append(run_id, TaskSubmitted(**of_task, task_id="task"))
        ended = TaskEnded(**of_task, task_id="task", usage=usage or TokenUsage(), cost_usd=cost_usd)
        await self.runs.append(run_id, ended)
        step_phase = Phase.FAILED if phase is Phase.FAILED else Phase.SUCCEEDED
        await self.runs.append(
            run_id, StepEnded(at=now, step="write", iteration=1, phase=step_phase, message="no model")
        )
        await self.runs.append(run_id, RunEnded(at=now + 2.5, phase=phase, **more))
        run = await self.runs.read(run_id)
        await self.notifications.on_run_end(run)
        return run

    async def settled(self) -> None:
        """Wait until nothing is in the outbox any more."""
        async with asyncio.timeout(WITHIN_S):
            while [key async for key, value in self.notifications.outbox.all() if _is_open(key, value)]:
                await asyncio.sleep(0.005)

    async def last(self, stored: Stored[Notify]) -> tuple[DispatchView, ...]:
        """What became of the last messages."""
        await self.settled()
        return await self.notifications.dispatches(stored)


def _is_open(key: str, value: bytes) -> bool:
    return key.startswith(DUE) or (
        key.startswith(EVENTS) and b'"isOver"' not in value and b'"is_over":true' not in value
    )


@asynccontextmanager
async def office(
    backend: Backend,
    *,
    guard: NetGuard = HERE,
    persistence: Persistence = QUICK,
    delivers: bool = True,
    public_url: str = "",
) -> AsyncIterator[Office]:
    """One gateway."""
    async with Definitions(backend.state) as definitions:
        here = Office(backend, definitions)
        if not delivers:
            yield here
            return
        outbox = here.notifications.outbox
        links = Links(public_url)
        async with NotifyDelivery(outbox, definitions, guard, links=links, duty_ttl_s=1.0, persistence=persistence):
            yield here


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """One store."""
    async with await open_backend("memory://") as opened:
        yield opened


async def test_a_webhook_is_told_how_a_run_ended(backend: Backend) -> None:
    """Kubeswarm's fields, an id to tell repeats by, and headers from the policy."""
    async with Receiver() as receiver, office(backend) as here:
        headers = (Header(name="X-Team", value="ops"),)
        stored = await here.store(Channel(url=receiver.url, headers=headers))
        usage = TokenUsage(input_tokens=20, output_tokens=5)
        run = await here.ended(output="x" * 600, usage=usage, cost_usd=0.25)
        [call] = await receiver.calls(1)
        body = call.body
        assert (body["event"], body["team"], body["phase"]) == ("TeamSucceeded", "report", "Succeeded")
        assert (body["runName"], body["totalTokens"], body["costUsd"]) == (run.header.id, 25, 0.25)
        assert body["output"] == "x" * 500 + "..."
        assert body["durationMs"] >= 2000
        assert call.headers["x-team"] == "ops"
        assert call.headers["webhook-id"].startswith("msg_")
        [dispatch] = await here.last(stored)
        assert (dispatch.succeeded, dispatch.event, dispatch.run) == (True, "TeamSucceeded", run.header.id)


@pytest.mark.parametrize(
    ("phase", "reason", "event"),
    [
        (Phase.SUCCEEDED, "", NotifyEvent.TEAM_SUCCEEDED),
        (Phase.FAILED, "StepFailed", NotifyEvent.TEAM_FAILED),
        (Phase.FAILED, "TimedOut", NotifyEvent.TEAM_TIMED_OUT),
        (Phase.CANCELLED, "Cancelled", NotifyEvent.TEAM_CANCELLED),
    ],
)
async def test_each_end_has_its_event_and_policies_choose(
    backend: Backend, phase: Phase, reason: str, event: NotifyEvent
) -> None:
    """A policy that wants just this event is told; one that wants another is not."""
    other = next(each for each in NotifyEvent if each is not event)
    async with Receiver() as receiver, office(backend) as here:
        wanting = await here.store(Channel(url=receiver.url), on=(event,))
        deaf = await here.store(Channel(url=receiver.url), slug="deaf", on=(other,), is_for_all=True)
        await here.ended(phase, reason=reason, message="it went wrong")
        [dispatch] = await here.last(wanting)
        assert dispatch.event == event
        assert [each.event for each in await here.last(deaf)] == [""]
        if phase is Phase.FAILED:
            assert receiver.told[0].body["failedStep"] == "write"
            said = "no model" if reason == "StepFailed" else "it went wrong"  # what the step says, or what the run does
            assert receiver.told[0].body["reason"] == said


async def test_who_is_told(backend: Backend) -> None:
    """The policy that the team names, and those for all; of tenants, the tenant's own or everybody's."""
    async with Receiver() as receiver, office(backend) as here:
        for slug, fields in (
            ("named", {}),
            ("for-all", {"is_for_all": True}),
            ("not-named", {}),
            ("off", {"is_for_all": True, "is_active": False}),
            ("others", {"is_for_all": True, "namespace": "other"}),
            ("own", {"is_for_all": True, "namespace": "acme"}),
        ):
            channel = Channel(url=receiver.url, headers=(Header(name="x-policy", value=slug),))
            await here.store(channel, slug=slug, **fields)
        await here.ended(policy="named", tenant="acme")
        await here.settled()
        assert sorted(call.headers["x-policy"] for call in receiver.told) == ["for-all", "named", "own"]
        await here.ended(Phase.FAILED, policy="no-such", reason="StepFailed")
        await here.settled()
        assert sorted(call.headers["x-policy"] for call in receiver.told[3:]) == ["for-all"]


async def test_a_run_that_is_told_of_again_makes_no_other_message(backend: Backend) -> None:
    """Two gateways are told of the same end, again and again, also afterwards: one call."""
    async with Receiver() as receiver, office(backend) as here, office(backend) as there:
        stored = await here.store(Channel(url=receiver.url), rate_limit_s=0)
        run = await here.ended()
        for each in (here, there, here):
            await each.notifications.on_run_end(run)
        await here.last(stored)
        await there.notifications.on_run_end(run)
        await here.settled()
        assert len(receiver.told) == 1


async def test_the_rate_limit_is_of_one_tenants_team_and_says_the_same_again(backend: Backend) -> None:
    """A team of another tenant is another team, whatever it is called; and a gateway that takes over is told what the
    one before was told."""
    async with office(backend, delivers=False) as here:
        policy = await here.store(Channel(url="https://example.com/"), rate_limit_s=600, is_for_all=True)
        for tenant in ("acme", "acme", "other"):
            await here.ended(Phase.FAILED, tenant=tenant)
        outbox = here.notifications.outbox
        happened = [msgspec.json.decode(value, type=Happening) async for _, value in outbox.all()]
        told = [await outbox.may_tell(each, policy) for each in happened]
        assert sorted(each.payload.namespace for each, may in zip(happened, told, strict=True) if may) == [
            "acme",
            "other",
        ]
        assert [await outbox.may_tell(each, policy) for each in happened] == told


async def test_the_rate_limit_holds_over_all_gateways(backend: Backend) -> None:
    """The second success within five minutes is held back, whichever gateway sees it; a failure is another event; and
    without a limit, all are told."""
    async with Receiver() as receiver, office(backend) as here, office(backend) as there:
        await here.store(Channel(url=receiver.url))
        await here.store(Channel(url=f"{receiver.url}/all"), slug="all", rate_limit_s=0, is_for_all=True)
        for each in (here, there, here):
            await each.ended()
        await there.ended(Phase.FAILED, reason="StepFailed")
        await here.settled()
        told = [call.body["event"] for call in receiver.told if not call.path.endswith("/all")]
        assert sorted(told) == ["TeamFailed", "TeamSucceeded"]
        assert sum(call.path.endswith("/all") for call in receiver.told) == 4


async def test_slack_gets_a_text_and_blocks(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the address in the environment; nothing that a model says becomes a mention or a link."""
    async with Receiver() as receiver, office(backend) as here:
        monkeypatch.setenv("SLACK_HOOK", receiver.url)
        await here.store(Channel(type="slack", url_env="SLACK_HOOK"))
        await here.ended(output="<!channel> see <http://bad|here> & there")
        [call] = await receiver.calls(1)
        assert call.body["text"] == ':white_check_mark: Team "report" succeeded'
        blocks = call.body["blocks"]
        assert {block["type"] for block in blocks} == {"section"}
        assert blocks[0]["text"] == {"type": "mrkdwn", "text": ':white_check_mark: *Team "report" succeeded*'}
        assert blocks[-1]["text"]["text"] == "&lt;!channel&gt; see &lt;http://bad|here&gt; &amp; there"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ .event }}: {{ .Team }} after {{ .durationMs }} ms", "TeamSucceeded: report after"),
        ('{"t": {{ toJson .message }}}', '{"t": "Team \\"report\\" succeeded"}'),
    ],
)
async def test_a_template_is_the_whole_body(backend: Backend, template: str, expected: str) -> None:
    """Fields by their names in JSON, and by those of kubeswarm's own templates."""
    async with Receiver() as receiver, office(backend) as here:
        await here.store(Channel(url=receiver.url, template=template))
        await here.ended()
        [call] = await receiver.calls(1)
        assert call.raw.decode().startswith(expected)


async def test_a_template_is_slacks_text(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the blocks, too."""
    async with Receiver() as receiver, office(backend) as here:
        monkeypatch.setenv("SLACK_HOOK", receiver.url)
        await here.store(Channel(type="slack", url_env="SLACK_HOOK", template="*{{ .RunName | len }}* {{ .Phase }}"))
        run = await here.ended()
        [call] = await receiver.calls(1)
        text = f"*{len(run.header.id)}* Succeeded"
        assert call.body == {"text": text, "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": text}}]}


async def test_a_receiver_that_fails_is_tried_again_with_the_same_id(backend: Backend) -> None:
    """Twice 500, then taken."""
    async with Receiver("500 Oops", "503 Busy") as receiver, office(backend) as here:
        stored = await here.store(Channel(url=receiver.url))
        await here.ended()
        calls = await receiver.calls(3)
        assert len({call.headers["webhook-id"] for call in calls}) == 1
        [dispatch] = await here.last(stored)
        assert (dispatch.succeeded, dispatch.tries, dispatch.status) == (True, 3, 200)


async def test_what_cannot_be_delivered_is_given_up_and_seen(backend: Backend) -> None:
    """After the last try; a receiver that is gone is not tried again; other channels are told all the same."""
    async with (
        Receiver(*["500 Oops"] * 3) as failing,
        Receiver("410 Gone") as gone,
        Receiver() as good,
        office(backend) as here,
    ):
        channels = [Channel(url=each.url) for each in (failing, gone, good)]
        stored = await here.store(*channels)
        await here.ended()
        first, second, third = await here.last(stored)
        assert (first.succeeded, first.tries, first.error) == (False, 3, "the receiver answered 500")
        assert (second.succeeded, second.tries) == (False, 1)
        assert third.succeeded


async def test_addresses_of_this_network_are_refused(backend: Backend) -> None:
    """With the setting that would allow it."""
    async with Receiver() as receiver, office(backend, guard=NetGuard()) as here:
        stored = await here.store(Channel(url=receiver.url), Channel(url="http://169.254.169.254/latest"))
        await here.ended()
        for dispatch in await here.last(stored):
            assert not dispatch.succeeded
            assert "SHOAL_ALLOW_PRIVATE_ADDRESSES" in dispatch.error
        assert receiver.told == []


async def test_a_variable_that_is_not_set_is_named_and_a_secret_is_not(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address stands neither in the store nor in an error."""
    async with Receiver() as receiver, office(backend) as here:
        await receiver.stop()
        secret = f"http://127.0.0.1:{receiver.port}/services/T0/SECRETPART"
        monkeypatch.setenv("HOOK", secret)
        stored = await here.store(Channel(url_env="HOOK"), Channel(url_env="NOT_SET"))
        await here.ended()
        broken, unset = await here.last(stored)
        assert not broken.succeeded
        assert "SECRETPART" not in broken.error
        assert "NOT_SET" in unset.error
        for message in await here.notifications.outbox.history("", "team-events"):
            assert "SECRETPART" not in repr(message)


async def test_what_happened_while_no_gateway_was_there_is_told_later(backend: Backend) -> None:
    """It was written down: the next gateway delivers."""
    async with Receiver() as receiver:
        async with office(backend, delivers=False) as here:
            await here.store(Channel(url=receiver.url))
            run = await here.ended()
        async with office(backend):
            [call] = await receiver.calls(1)
            assert call.body["runName"] == run.header.id


async def test_a_gateway_that_dies_while_it_delivers_is_followed_by_another(backend: Backend) -> None:
    """The receiver had taken the call and never answered: it is told again, under the same id."""
    async with Receiver() as receiver:
        receiver.is_silent = True
        async with office(backend) as here:
            stored = await here.store(Channel(url=receiver.url))
            await here.ended()
            await receiver.calls(1)
        receiver.is_silent = False
        async with office(backend) as there:
            first, second = await receiver.calls(2)
            assert first.headers["webhook-id"] == second.headers["webhook-id"]
            assert [each.succeeded for each in await there.last(stored)] == [True]


async def test_a_budget_that_runs_out_is_told_of(backend: Backend) -> None:
    """Policies that are for all hear of it: a warning at the soft limit, another event at the limit."""
    async with Receiver() as receiver, office(backend) as here:
        await here.store(Channel(url=receiver.url), on=(NotifyEvent.BUDGET_EXCEEDED,), is_for_all=True)
        for is_limit in (False, True):
            warning = BudgetWarning(
                budget="monthly",
                scope="tenant",
                account="acme",
                period="month",
                is_limit=is_limit,
                tokens_used=1000,
                tokens_limit=1000,
                usd_used=2.0,
                usd_limit=None,
                text="budget monthly of acme is used up",
            )
            await here.notifications.on_budget(warning)
        await here.settled()
        [call] = receiver.told
        assert (call.body["event"], call.body["team"], call.body["namespace"]) == ("BudgetExceeded", "acme", "acme")
        assert call.body["message"] == "budget monthly of acme is used up"


async def test_a_teams_daily_limit_is_told_of_by_the_policy_that_it_names(backend: Backend) -> None:
    """Its own event, and no policy that is for others."""
    async with Receiver() as receiver, office(backend) as here:
        await here.store(Channel(url=receiver.url))
        await here.store(Channel(url=f"{receiver.url}/other"), slug="other")
        await here.definitions.teams.create(StoredTeam(slug="report", plan=plan(notify="team-events")))
        warning = BudgetWarning(
            budget="team/report",
            scope="team",
            account="report",
            period="day",
            is_limit=True,
            tokens_used=1000,
            tokens_limit=1000,
            usd_used=0.0,
            usd_limit=None,
            text="team report has used what it may in a day",
        )
        await here.notifications.on_budget(warning)
        await here.settled()
        [call] = receiver.told
        assert (call.body["event"], call.body["team"]) == ("DailyLimitReached", "report")


async def test_an_agent_that_lacks_something_is_told_of(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers find the same at the same time: those who want to hear of it hear once, in kubeswarm's fields."""
    async with Receiver() as receiver, office(backend) as here:
        await here.store(Channel(url=receiver.url), rate_limit_s=0, is_for_all=True)
        await here.store(
            Channel(url=f"{receiver.url}/deaf"), slug="deaf", on=(NotifyEvent.TEAM_FAILED,), is_for_all=True
        )
        what = Degradation(agent="writer", cause='MCP server "search"', reason="connection refused")
        monkeypatch.setattr("worker.teams.notify.service.time", SimpleNamespace(time=lambda: 1_795_000_000.0))
        await here.notifications.on_degraded(what)
        await here.notifications.on_degraded(what)
        await here.settled()
        [call] = receiver.told
        body = call.body
        assert (body["event"], body["team"], body["phase"]) == ("AgentDegraded", "writer", "Degraded")
        assert body["message"] == 'Agent "writer" is degraded: MCP server "search" cannot be used'
        assert body["reason"] == "connection refused"


async def test_teams_of_an_agent_hear_of_its_trouble(backend: Backend) -> None:
    """By the policy that they name, in their own namespace; other teams do not. A role's trouble is its own team's."""
    agent = plan(notify="team-events")
    [team] = agent.teams
    roles = tuple(msgspec.structs.replace(role, agent="writer") for role in team.roles)
    agent = msgspec.structs.replace(agent, teams=(msgspec.structs.replace(team, roles=roles),))
    async with Receiver() as receiver, office(backend) as here:
        await here.store(Channel(url=f"{receiver.url}/acme"), namespace="acme")
        await here.store(Channel(url=f"{receiver.url}/all"))
        await here.store(Channel(url=f"{receiver.url}/role"), slug="of-the-role")
        await here.definitions.teams.create(StoredTeam(slug="report", namespace="acme", plan=agent))
        await here.definitions.teams.create(StoredTeam(slug="other", plan=plan(notify="of-the-role")))
        await here.notifications.on_degraded(Degradation(agent="writer", cause="the plugin", reason="it is gone"))
        await here.settled()
        assert [call.path for call in receiver.told] == ["/hook/acme"]
        of_role = Degradation(agent="report/write", cause="the plugin", reason="it is gone", policy="of-the-role")
        await here.notifications.on_degraded(of_role)
        await here.settled()
        assert [call.path for call in receiver.told[1:]] == ["/hook/role"]


async def test_with_a_public_address_notifications_link_to_the_dashboard(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the run that ended, in kubeswarm's field and in Slack's message; without the address there is no link."""
    async with Receiver() as receiver, office(backend, public_url="https://shoal.example.com/ops/") as here:
        monkeypatch.setenv("SLACK_HOOK", f"{receiver.url}/slack")
        await here.store(Channel(url=receiver.url), Channel(type="slack", url_env="SLACK_HOOK"))
        run = await here.ended()
        await receiver.calls(2)
        by_path = {call.path: call.body for call in receiver.told}
        link = f"https://shoal.example.com/ops/dashboard#/runs/{run.header.id}"
        slack = by_path.pop("/hook/slack")
        [webhook] = by_path.values()
        assert webhook["dashboardURL"] == link
        assert f"<{link}|Open in the dashboard>" in str(slack["blocks"])
    async with Receiver() as receiver, office(backend) as here:
        await here.store(Channel(url=receiver.url), slug="second")
        await here.ended(policy="second")
        [call] = await receiver.calls(1)
        assert "dashboardURL" not in call.body


async def test_a_test_message_goes_out_whatever_the_limits(backend: Backend) -> None:
    """Twice within the rate limit, and for events that the policy does not tell of."""
    async with Receiver() as receiver, office(backend) as here:
        stored = await here.store(Channel(url=receiver.url), on=(NotifyEvent.TEAM_SUCCEEDED,))
        await here.notifications.test(stored)
        await here.notifications.test(stored)
        calls = await receiver.calls(2)
        assert {call.body["team"] for call in calls} == {"test-team"}
