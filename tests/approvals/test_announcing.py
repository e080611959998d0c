"""Webhooks are told of questions: signed, again after a failure, by whichever process has the duty."""

from __future__ import annotations

import asyncio

from queue_backends import Backend
from tests.approvals.conftest import Office, Working, calls, says, until
from tests.gateway.callback_receiver import Receiver
from worker.approvals import Approval, Approvals
from worker.approvals.announcing import Announcing
from worker.approvals.news import all_news
from worker.deliveries.trying import Patience
from worker.net_guard import NetGuard
from worker.settings.approvals import ApprovalSettings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LOCAL = NetGuard(allowed=["127.0.0.1"])
QUICK = Patience(again_after_s=(0.05, 0.05, 0.05), answer_within_s=10.0)


def announcing(backend: Backend, url: str = "", guard: NetGuard = LOCAL) -> Announcing:
    """As a worker or a gateway does it."""
    settings = ApprovalSettings(webhook=url, webhook_secret=SECRET)
    return Announcing(backend.state, settings, guard, patience=QUICK)


async def left(backend: Backend) -> int:
    """How much is still to be told."""
    return len([news async for news in all_news(backend.state)])


async def test_a_question_is_told_once_it_is_put(backend: Backend) -> None:
    """With all that it takes to answer, in a signature that a receiver's library checks, and under the same id if it
    has to be told again."""
    async with Receiver("500 Oops") as receiver, announcing(backend, receiver.url):
        approvals = Approvals(backend.state)
        asked = await approvals.open(Approval(what="tool", message="Wipe?", tool="wipe", arguments={"n": 1}), key="k")
        first, second = await receiver.calls(2)
        await until(lambda: left(backend), lambda count: count == 0)
        body = second.body
        assert body["type"] == "approval.asked"
        assert body["data"]["approval"]["arguments"] == {"n": 1}
        assert body["data"]["answer"]["path"] == f"/v1/approvals/{asked.id}"
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert second.is_signed_with(SECRET)
        await approvals.open(Approval(message="Wipe?"), key="k")  # the same question again
        assert await left(backend) == 0


async def test_a_role_may_have_a_webhook_of_its_own(backend: Backend) -> None:
    """Its questions go there, and not to that of the settings."""
    async with Receiver() as general, Receiver() as own, announcing(backend, general.url):
        await Approvals(backend.state).open(Approval(message="Mine?"), key="k", webhook=own.url)
        await own.calls(1)
        assert general.told == []


async def test_who_puts_the_question_need_not_live_to_tell_it(backend: Backend) -> None:
    """Another process tells it; what was decided before that is told to nobody."""
    approvals = Approvals(backend.state)
    await approvals.open(Approval(message="Still open?"), key="open")
    decided = await approvals.open(Approval(message="Decided?"), key="decided")
    await approvals.decide(decided.id, approved=True)
    async with Receiver() as receiver, announcing(backend, receiver.url), announcing(backend, receiver.url):
        await receiver.calls(1)
        await until(lambda: left(backend), lambda count: count == 0)
        assert [each.body["data"]["approval"]["message"] for each in receiver.told] == ["Still open?"]


async def test_addresses_that_are_not_allowed_are_not_asked(backend: Backend) -> None:
    """A team's file cannot have this machine's own services called."""
    async with Receiver() as receiver, announcing(backend, guard=NetGuard()):
        await Approvals(backend.state).open(Approval(message="?"), key="k", webhook=receiver.url)
        await until(lambda: left(backend), lambda count: count == 0)
        assert receiver.told == []


async def test_a_worker_tells_by_itself(office: Office, working: Working) -> None:
    """No gateway is needed."""
    async with Receiver() as receiver:
        settings = {"approval.webhook": receiver.url, "allow_private_addresses": ("127.0.0.1",)}
        async with working(calls("note", "x"), says("done"), **settings):
            handle = await office.fleet.submit("hi")
            await receiver.calls(1)
            body = receiver.told[0].body
            assert body["data"]["approval"]["task"] == handle.id
            await office.approvals.decide(body["data"]["approval"]["id"], approved=True)
            async with asyncio.timeout(30):
                assert (await handle.result()).output == "done"
