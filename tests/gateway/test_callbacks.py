"""Callbacks: told at least once, signed, patiently, and to nobody who must not be asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from queue_backends import Backend, Task, TaskResult
from queue_backends.memory import open_backend
from tests.gateway.callback_receiver import WITHIN_S, Receiver
from tests.gateway.gateway_harness import GatewayServer, gateway_settings
from worker.deliveries.line import HostLine
from worker.deliveries.trying import Patience
from worker.gateway.callback_attempt import MOST_OUTPUT_CHARS
from worker.gateway.callback_delivery import AT_ONCE_PER_HOST, CallbackDelivery
from worker.gateway.callbacks import (
    DUE,
    OVER,
    Callback,
    CallbackEvent,
    CallbackRequest,
    Callbacks,
    CallbackState,
    CallbackView,
)
from worker.net_guard import NetGuard
from worker.sealing import Sealer
from worker.settings import Settings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LOCAL = NetGuard(allowed=["127.0.0.1"])
QUICK = Patience(again_after_s=(0.01, 0.01, 0.01), answer_within_s=10.0)


class Office:
    """A backend with callbacks, and tasks that end as a test likes."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.callbacks = Callbacks(backend.state, LOCAL, Sealer("a key for these tests"))

    @asynccontextmanager
    async def delivering(
        self,
        patience: Patience = QUICK,
        guard: NetGuard = LOCAL,
        look_every_s: float = 0.01,
        duty_ttl_s: float = 30.0,
    ) -> AsyncIterator[None]:
        """As a gateway does."""
        delivery = CallbackDelivery(
            self.callbacks, self.backend, guard, duty_ttl_s=duty_ttl_s, look_every_s=look_every_s, patience=patience
        )
        async with delivery:
            yield

    async def task(self, url: str, *events: CallbackEvent, secret: str = "") -> str:
        """A task with a callback."""
        task_id = await self.backend.queue.submit(Task(prompt="call me"))
        await self.callbacks.add(task_id, CallbackRequest(url=url, secret=secret, events=events))
        return task_id

    async def end(self, output: str = "done", error: str = "") -> None:
        """End the task at the head of the queue."""
        [delivery] = await self.backend.queue.pull(1, 5.0)
        result = TaskResult(task_id=delivery.task.id, output=output, error=error, finished_at=1_800_000_000.0)
        await self.backend.queue.ack(delivery, result)

    async def until(self, task_id: str, *states: CallbackState) -> CallbackView:
        """The callback, once it is in one of these states."""
        async with asyncio.timeout(WITHIN_S):
            while (view := await self.callbacks.view(task_id)) is None or view.state not in states:
                await asyncio.sleep(0.01)
        return view


class SlowReading(Callbacks):
    """Reads, and takes its time to say what it has read."""

    def __init__(self, office: Office) -> None:
        super().__init__(office.backend.state, LOCAL, Sealer())
        self.has_read, self.goes_on = asyncio.Event(), asyncio.Event()

    async def due(self) -> dict[str, Callback]:
        """As it was before `has_read`, once `goes_on` is set."""
        found = await super().due()
        self.has_read.set()
        await self.goes_on.wait()
        return found


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    """An empty one."""
    async with await open_backend("memory://", gateway_settings().backend) as backend:
        yield Office(backend)


@pytest.fixture(scope="module")
def gateway_config() -> Settings:
    """A gateway that may call this machine."""
    return gateway_settings(allow_private_addresses=("127.0.0.1",))


async def test_a_receiver_is_told_of_the_end(gateway_server: GatewayServer) -> None:
    """The call is signed and says how the task ended; the task shows its delivery, and nowhere the secret."""
    async with Receiver() as receiver, gateway_server.client() as client:
        body = {"prompt": "hi", "callback": {"url": receiver.url, "secret": SECRET}}
        submitted = await client.post("/v1/tasks?wait_s=20", json=body)
        [told] = await receiver.calls(1)
        async with asyncio.timeout(WITHIN_S):
            while (shown := await client.get(f"/v1/tasks/{submitted.json()['id']}")).json()["callback"][
                "state"
            ] != "delivered":
                await asyncio.sleep(0.02)

    assert told.is_signed_with(SECRET)
    assert told.body["type"] == "task.succeeded"
    assert told.body["data"]["id"] == submitted.json()["id"]
    assert told.body["data"]["result"]["output"] == "mock response"
    assert shown.json()["callback"]["tries"] == 1
    assert shown.json()["callback"]["is_signed"]
    assert SECRET not in submitted.text + shown.text


async def test_a_receiver_that_is_down_is_told_later(office: Office) -> None:
    """Each try is the same message."""
    receiver = Receiver("500 Oh", "503 No")
    task_id = await office.task(receiver.url)
    await office.end()
    patience = Patience(again_after_s=(0.05,) * 200)
    async with office.delivering(patience):
        async with asyncio.timeout(WITHIN_S):
            while not (view := await office.callbacks.view(task_id)) or not view.tries:
                await asyncio.sleep(0.01)
        async with receiver:
            told = await receiver.calls(3)
            view = await office.until(task_id, CallbackState.DELIVERED)

    assert "webhook-signature" not in told[0].headers
    assert {each.headers["webhook-id"] for each in told} == {view.id}
    assert view.tries > 3
    assert view.last_status == 200


async def test_a_slow_receiver_holds_up_no_other(office: Office) -> None:
    """It is given up on for this try after some time; others hear of their tasks meanwhile."""
    async with Receiver() as slow, Receiver() as quick:
        slow.is_silent = True
        slow_id = await office.task(slow.url)
        await office.end()
        async with office.delivering(Patience(again_after_s=(3600.0,), answer_within_s=0.5)):
            await slow.calls(1)
            quick_id = await office.task(quick.url)
            await office.end()
            await office.until(quick_id, CallbackState.DELIVERED)
            async with asyncio.timeout(WITHIN_S):
                while not (view := await office.until(slow_id, CallbackState.PENDING)).tries:
                    await asyncio.sleep(0.01)

    assert view.last_error
    assert view.next_try_at is not None


async def test_many_are_told_one_after_the_other(office: Office) -> None:
    """A receiver of many hears of all that have ended without a pause, and of few at a time."""
    async with Receiver() as receiver:
        ids = [await office.task(receiver.url) for _ in range(3 * AT_ONCE_PER_HOST)]
        for _ in ids:
            await office.end()
        async with office.delivering(look_every_s=3600.0):
            await receiver.calls(len(ids))
            for task_id in ids:
                await office.until(task_id, CallbackState.DELIVERED)
    assert len({told.headers["webhook-id"] for told in receiver.told}) == len(receiver.told) == len(ids)


async def test_what_happens_while_all_are_read_counts_more(office: Office) -> None:
    """What is delivered meanwhile is not told again, and what is added is not forgotten."""
    callbacks = SlowReading(office)
    delivery = CallbackDelivery(callbacks, office.backend, LOCAL, look_every_s=0.01, patience=QUICK)
    async with Receiver() as receiver:
        first = await office.task(receiver.url)
        await office.end()
        async with asyncio.timeout(WITHIN_S), delivery:
            await callbacks.has_read.wait()
            raw = await office.backend.state.get(DUE + first)
            assert raw is not None
            await office.backend.state.set(DUE + first, raw)  # heard of, and told at once
            await office.until(first, CallbackState.DELIVERED)
            second = await office.task(receiver.url)
            await asyncio.sleep(0)
            callbacks.goes_on.set()
            await office.end()
            await office.until(second, CallbackState.DELIVERED)
    assert [told.body["data"]["id"] for told in receiver.told] == [first, second]


def test_hosts_take_turns() -> None:
    """Each has room of its own, within the room for all; nobody stands in line twice."""
    line = HostLine(most=4, most_of_one=2)
    for task_id, host in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c"), ("a1", "a")):
        line.add(task_id, host)
    first = [line.take() for _ in range(5)]
    line.leave("b1")
    second = line.take()  # there is room, but not for this host
    line.leave("a1")
    third = line.take()
    for told in ("a2", "a3", "c1"):
        line.leave(told)

    assert first == ["a1", "b1", "c1", "a2", None]
    assert (second, third) == (None, "a3")
    assert line.take() is None
    assert "a1" not in line


async def test_redirects_are_not_followed(office: Office) -> None:
    """Whoever receives decides nothing about where else is asked; after the last try the callback is dead."""
    async with Receiver() as elsewhere, Receiver(*[f"302 Found\nLocation: {elsewhere.url}"] * 4) as receiver:
        task_id = await office.task(receiver.url)
        await office.end()
        async with office.delivering():
            view = await office.until(task_id, CallbackState.DEAD)

    assert not elsewhere.told
    assert view.last_status == 302
    assert "redirects are not followed" in view.last_error
    assert view.tries == 4


async def test_a_refused_address_is_not_called(office: Office) -> None:
    """Also if it was allowed when the task was submitted."""
    async with Receiver() as receiver:
        task_id = await office.task(receiver.url)
        await office.end()
        async with office.delivering(guard=NetGuard()):
            view = await office.until(task_id, CallbackState.DEAD)

    assert not receiver.told
    assert "SHOAL_ALLOW_PRIVATE_ADDRESSES" in view.last_error


async def test_a_receiver_that_wants_no_more_is_left_alone(office: Office) -> None:
    """410 ends it at once."""
    async with Receiver("410 Gone") as receiver:
        task_id = await office.task(receiver.url)
        await office.end()
        async with office.delivering():
            view = await office.until(task_id, CallbackState.DEAD)
        told_again = await office.callbacks.again(task_id)
        async with office.delivering():
            await office.until(task_id, CallbackState.DELIVERED)
    assert view.tries == 1
    assert told_again is not None
    assert [each.task_id for each in await office.callbacks.dead()] == [task_id]
    assert await office.callbacks.dead(tenant="somebody else") == []


async def test_what_was_just_put_in_order_again_is_not_once_more(office: Office) -> None:
    """Of two who ask for it at once, one is told of a message that will come, and the other of none."""
    async with Receiver() as receiver:
        task_id = await office.task(receiver.url)
        await office.end()
        async with office.delivering():
            await office.until(task_id, CallbackState.DELIVERED)
        over = await office.backend.state.get(OVER + task_id)
        assert over is not None
        first = await office.callbacks.again(task_id)
        await office.backend.state.set(OVER + task_id, over)  # as whoever read it before sees it
        second = await office.callbacks.again(task_id)
        shown = await office.callbacks.view(task_id)
    assert first is not None
    assert second is None
    assert shown == first


async def test_a_repeated_submission_is_told_of_once(office: Office) -> None:
    """Whoever submits with an idempotency key again gets no second call."""
    async with Receiver() as receiver:
        task_id = await office.task(receiver.url)
        await office.end()
        async with office.delivering():
            await office.until(task_id, CallbackState.DELIVERED)
            again = await office.callbacks.add(task_id, CallbackRequest(url=receiver.url))
    assert again.state is CallbackState.DELIVERED


async def test_another_gateway_takes_over(office: Office) -> None:
    """The gateway with the duty has died before it told of anything: whoever is left does."""
    await office.backend.state.set("gateway/callbacks/duty", b"a gateway that is dead", ttl_s=0.2)
    async with Receiver() as receiver:
        task_id = await office.task(receiver.url)
        await office.end()
        async with office.delivering(duty_ttl_s=0.5):
            await office.until(task_id, CallbackState.DELIVERED)
    assert len(receiver.told) == 1


async def test_what_was_not_told_before_a_restart_is_told_after_it(office: Office) -> None:
    """A gateway that stops in the middle of a call leaves the callback to the next one."""
    async with Receiver() as receiver:
        receiver.is_silent = True
        task_id = await office.task(receiver.url)
        await office.end()
        async with office.delivering():
            await receiver.calls(1)
        receiver.is_silent = False
        async with office.delivering():
            await office.until(task_id, CallbackState.DELIVERED)
    assert len(receiver.told) == 2


@pytest.mark.parametrize(("error", "state"), [("", "skipped"), ("broken", "delivered"), ("run cancelled", "skipped")])
async def test_only_wanted_ends_are_told(office: Office, error: str, state: str) -> None:
    """A callback may be for failures alone."""
    async with Receiver() as receiver:
        task_id = await office.task(receiver.url, CallbackEvent.FAILED)
        await office.end(error=error)
        async with office.delivering():
            view = await office.until(task_id, CallbackState.DELIVERED, CallbackState.SKIPPED)
    assert view.state == state
    assert len(receiver.told) == (state == "delivered")


async def test_a_long_output_is_cut(office: Office) -> None:
    """The message says so, and stays small enough for receivers."""
    async with Receiver() as receiver:
        await office.task(receiver.url)
        await office.end("x" * (MOST_OUTPUT_CHARS + 1))
        async with office.delivering():
            [told] = await receiver.calls(1)
    assert told.body["data"]["result"]["output_is_cut"]
    assert len(told.raw) < MOST_OUTPUT_CHARS + 1000


async def test_secrets_are_sealed_at_rest(office: Office) -> None:
    """The store does not have them in the clear."""
    task_id = await office.task("http://127.0.0.1:9999/hook", secret=SECRET)
    raw = await office.backend.state.get(DUE + task_id)
    assert raw is not None
    assert SECRET.encode() not in raw
    callback = await office.callbacks.read(task_id)
    assert callback is not None
    assert SECRET not in repr(callback)
    assert office.callbacks.secret_of(callback) == SECRET


async def test_a_task_that_runs_again_is_told_of_again(office: Office) -> None:
    """As a new message with the same secret, after its dead letter was brought back."""
    async with Receiver() as receiver:
        task_id = await office.task(receiver.url, secret=SECRET)
        [delivery] = await office.backend.queue.pull(1, 5.0)
        await office.backend.queue.nack(delivery, "broken", dead=True)
        async with office.delivering():
            await office.until(task_id, CallbackState.DELIVERED)
            [letter] = await office.backend.queue.dead_letters()
            await office.backend.queue.requeue([letter.id])
            await office.callbacks.again(task_id)
            await office.end()
            first, second = await receiver.calls(2)

    assert first.body["type"] == "task.failed"
    assert second.body["type"] == "task.succeeded"
    assert first.headers["webhook-id"] != second.headers["webhook-id"]
    assert second.is_signed_with(SECRET)
